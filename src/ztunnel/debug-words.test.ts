import { expect, test } from "bun:test";
import { delta, policy, service, workload } from "../../test/kit/mesh-records.ts";
import { err, ok } from "../core/result.ts";
import type { SpiffeId } from "../core/spiffe.ts";
import type { CertificateSource } from "../identity/certificate-source.ts";
import type { LogFields, Logger } from "../runtime/logger.ts";
import { CHANGES_SHOWN_MAX, tellChanges, tellingSource } from "./debug-words.ts";

function logger(enabled = true): { log: Logger; lines: string[] } {
  const lines: string[] = [];
  const other = () => expect.unreachable("only debug is spoken");
  return { lines, log: { error: other, warn: other, info: other, enabled: () => enabled, debug: (message, fields: LogFields = {}) => void lines.push([message, ...Object.values(fields)].join(" ")) } };
}

test("each resource that came or went is told, only where debug is wanted", () => {
  const web = workload({ name: "web" });
  const change = { ...delta({ workloads: [web], policies: [policy({ name: "p" })] }), removedWorkloads: [workload({ name: "old" }).uid] };
  const { log, lines } = logger();
  tellChanges(log, 7, change);
  expect(lines).toEqual([`workload new or changed ${web.uid} 7`, "policy new or changed shop/p 7", `workload gone ${workload({ name: "old" }).uid} 7`]);
  const quiet = logger(false);
  tellChanges(quiet.log, 7, change);
  expect(quiet.lines).toEqual([]);
});

test("a large change is cut, and the rest counted", () => {
  const { log, lines } = logger();
  tellChanges(log, 1, delta({ services: Array.from({ length: CHANGES_SHOWN_MAX + 3 }, (_, i) => service({ name: `s${i}` })) }));
  expect(lines).toHaveLength(CHANGES_SHOWN_MAX + 1);
  expect(lines.at(-1)).toBe("more resources have changed 3 1");
});

test("a certificate source is told of and not changed", async () => {
  const { log, lines } = logger();
  const request = { spiffeId: "spiffe://td/ns/a/sa/b" as SpiffeId, csrPem: "SECRET", lifetimeMs: 5, signal: new AbortController().signal };
  const chain = { chainPem: ["CHAIN"], trustBundlePem: "ROOT" };
  const fault = { code: "refused", message: "not yours" } as Extract<Awaited<ReturnType<CertificateSource["issue"]>>, { ok: false }>["error"];
  const answers: Awaited<ReturnType<CertificateSource["issue"]>>[] = [ok(chain), err(fault)];
  let nowMs = 0;
  const source = tellingSource({ issue: async (asked) => { expect(asked).toBe(request); nowMs += 3; return answers.shift()!; } }, log, { monotonicMs: () => nowMs });
  expect(await source.issue(request)).toEqual(ok(chain));
  expect(await source.issue(request)).toEqual(err(fault));
  expect(lines).toEqual([
    "asking for a certificate spiffe://td/ns/a/sa/b 5", "the certificate came spiffe://td/ns/a/sa/b 1 3",
    "asking for a certificate spiffe://td/ns/a/sa/b 5", "no certificate came spiffe://td/ns/a/sa/b refused not yours 3",
  ]);
});
