import { expect, test } from "bun:test";
import type { Diagnostic } from "../resources/diagnostic.ts";
import { DiagnosticLog } from "./diagnostic-log.ts";
import { Log } from "./logger.ts";
import { parseLogFilter } from "./log-filter.ts";
import { LogWriter } from "./log-writer.ts";

function logged(): { readonly log: DiagnosticLog; readonly lines: () => string[] } {
  let text = "";
  const writer = new LogWriter({
    sink: { write: (bytes, done) => { text += Buffer.from(bytes).toString(); done(null, bytes.length); } },
    droppedLine: () => "",
  });
  const filter = parseLogFilter("info");
  if (!filter.ok) throw new Error(filter.error);
  const clock = { wallMs: () => 0, monotonicMs: () => 0 };
  const log = new DiagnosticLog(new Log({ writer, clock, format: "text", filter: filter.value }).scope("config"));
  return { log, lines: () => text.split("\n").slice(0, -1).map((line) => line.split("\t").slice(1).join(" ")) };
}

const typo: Diagnostic = {
  severity: "error", file: "shop.yaml", line: 14, column: 5, fieldPath: "spec.ports[0].prt", code: "unknown_field", message: "unknown field; did you mean port?", resource: "Service shop/web",
};
const state = (version: number, diagnostics: readonly Diagnostic[]) => ({ version, diagnostics, resourceCount: 1 });

test("a diagnostic is told once, with its level and its code once each, and once more when it is mended", () => {
  const { log, lines } = logged();
  log.tell(state(1, [typo]), { node: "here" });
  log.tell(state(2, [typo]));
  log.tell(state(3, []));
  expect(lines()).toEqual([
    'error config shop.yaml:14:5: Service shop/web spec.ports[0].prt: unknown field; did you mean port? code="unknown_field"',
    'info config configuration applied version=1 resources=1 node="here"',
    "info config configuration applied version=2 resources=1",
    'info config no longer so diagnostic="shop.yaml:14:5: Service shop/web spec.ports[0].prt: unknown field; did you mean port?" code="unknown_field"',
    "info config configuration applied version=3 resources=1",
  ]);
});

test("the severity is the level", () => {
  const { log, lines } = logged();
  log.tell(state(1, [{ ...typo, severity: "warning" }, { ...typo, severity: "info" }]));
  expect(lines().map((line) => line.split(" ")[0])).toEqual(["warn", "info", "info"]);
});
