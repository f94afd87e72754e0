import { describe, expect, test } from "bun:test";
import { seededRandom } from "../core/ports.ts";
import { AccessLog, formatJson, formatText } from "./access-log.ts";
import { BATCH_LINES_MAX, IN_FLIGHT_BYTES_MAX, type LineBytes, LogBatch, LogCredit } from "./log-batch.ts";
import { VALUE_CHARS_MAX } from "./log-text.ts";
import { record, service, workload } from "./telemetry-fixtures.ts";

const denied = record({
  reporter: "destination", hboneAddress: null, connectMs: null,
  decision: { verdict: "deny", reason: "denied by AuthorizationPolicy shop/no spec.rules[0]", policies: [{ kind: "AuthorizationPolicy", namespace: "shop", name: "no", resourceVersion: "1", fieldPath: "spec.rules[0]" }] },
  close: { code: "policy_denied", blame: "operator", message: "denied by a rule", flags: "DENY" },
});

describe("text", () => {
  test("has the reference's fields in its order, then ours", () => {
    expect(formatText(record())).toBe(
      '2026-01-02T03:04:05.006Z\tinfo\taccess\tconnection complete\tsrc.addr=198.18.0.1:40000 src.workload="client" src.namespace="shop"' +
      ' src.identity="spiffe://cluster.local/ns/shop/sa/client" dst.addr=198.18.0.2:15008 dst.hbone_addr=198.18.0.2:80 dst.service="web.shop.svc.cluster.local"' +
      ' dst.workload="web" dst.namespace="shop" dst.identity="spiffe://cluster.local/ns/shop/sa/web" direction="outbound" bytes_sent=10 bytes_recv=20' +
      ' duration="12ms" connect="1ms" decision="allow" reason="allowed: no allow policy applies" close=clean\n');
  });

  test("a failure is an error with its blame, flags and rule", () => {
    const line = formatText(denied);
    expect(line).toContain("\terror\taccess\t");
    expect(line).toContain('direction="inbound"');
    expect(line).toContain('decision="deny" reason="denied by AuthorizationPolicy shop/no spec.rules[0]" policy="AuthorizationPolicy shop/no spec.rules[0]"');
    expect(line.match(/ policy=/g)).toHaveLength(1);
    expect(line).toContain('close=policy_denied blame=operator flags=DENY error="denied by a rule"\n');
  });
});

test("of policies that none matched three are named, the rest counted", () => {
  const policies = ["a", "b", "c", "d", "e"].map((name) => ({ kind: "AuthorizationPolicy", namespace: "shop", name, resourceVersion: "1", fieldPath: "" }));
  const line = (count: number) => formatText(record({ decision: { verdict: "deny", reason: "r", policies: policies.slice(0, count) } }));
  expect(line(0)).not.toContain("policy=");
  expect(line(3)).toContain(' policy="AuthorizationPolicy shop/a, AuthorizationPolicy shop/b, AuthorizationPolicy shop/c" ');
  expect(line(5)).toContain(' policy="AuthorizationPolicy shop/a, AuthorizationPolicy shop/b, AuthorizationPolicy shop/c and 2 more" ');
});

describe("json", () => {
  test("says the same as one parsable object", () => {
    expect(JSON.parse(formatJson(denied))).toMatchObject({
      level: "error", scope: "access", "src.addr": "198.18.0.1:40000", "src.workload": "client", "dst.service": "web.shop.svc.cluster.local",
      direction: "inbound", bytes_sent: 10, duration: "12ms", decision: "deny", policy: "AuthorizationPolicy shop/no spec.rules[0]",
      close: "policy_denied", blame: "operator", flags: "DENY", error: "denied by a rule",
    });
  });
});

describe("hostile values", () => {
  const evil = 'x" error="forged\n2026-01-01\tinfo\taccess\t\u001b[31m\\\u2028\u0085\u007f\ud800 \ufeff';
  const hostile = record({
    source: workload(evil), service: { ...service, hostname: evil }, close: { code: "connect_failed", blame: "peer", message: evil, flags: "CONNECT" },
  });

  test("cannot forge a line, a field or a terminal sequence", () => {
    for (const line of [formatText(hostile), formatJson(hostile)]) {
      expect(line.indexOf("\n")).toBe(line.length - 1);
      expect(line.slice(0, -1)).toMatch(/^[\t\x20-\x7e]*$/);
    }
    expect(formatText(hostile).split("\t")).toHaveLength(5);
    expect(formatText(hostile)).not.toContain('x" error="');
    expect(JSON.parse(formatJson(hostile))["error"]).toBe(evil);
  });

  test("are cut", () => {
    const long = record({ close: { code: "connect_failed", blame: "peer", message: "m".repeat(100_000), flags: "CONNECT" } });
    expect(formatText(long).length).toBeLessThan(VALUE_CHARS_MAX + 1000);
  });
});

describe("sampling and batches", () => {
  const make = (sample: number, credit?: LogCredit) => {
    const posted: { lines: string; count: number }[] = [];
    const log = new AccessLog({
      format: "text", sample, random: seededRandom(7), post: (bytes, count) => posted.push({ lines: new TextDecoder().decode(bytes), count }), ...(credit === undefined ? {} : { credit }),
    });
    return { log, posted };
  };

  test("failures are always wanted, clean ends by the share asked for", () => {
    const { log } = make(0.1);
    expect(log.wants(true)).toBe(true);
    const wanted = Array.from({ length: 10_000 }, () => log.wants(false)).filter(Boolean).length;
    expect(wanted).toBeGreaterThan(850);
    expect(wanted).toBeLessThan(1150);
    expect(make(0).log.wants(false)).toBe(false);
  });

  test("lines go out in one batch, and nothing is posted when there are none", () => {
    const { log, posted } = make(1);
    log.flush();
    log.write(record());
    log.write(record());
    log.flush();
    expect(posted.map(({ count }) => count)).toEqual([2]);
    expect(posted[0]!.lines.split("\n")).toHaveLength(3);
  });

  test("lines stand as UTF-8, however long and in whatever script, in a buffer of their own that can change threads", () => {
    const posted: LineBytes[] = [];
    const batch = new LogBatch((bytes) => posted.push(bytes), null);
    const lines = Array.from({ length: 300 }, (_, i) => `${i} ${"\u00e9\u6f22\ud83d\ude80".repeat(i)}\n`);
    for (const line of lines) batch.add(line);
    batch.flush();
    batch.add("next\n");
    batch.flush();
    const received = posted.map((bytes) => structuredClone(bytes, { transfer: [bytes.buffer] }));
    expect(posted.map(({ length }) => length)).toEqual([0, 0]);
    expect(received.map((bytes) => new TextDecoder().decode(bytes))).toEqual([lines.join(""), "next\n"]);
  });

  test("a batch that is full does not wait for its flush", () => {
    const { log, posted } = make(1);
    for (let i = 0; i < 2 * BATCH_LINES_MAX + 5; i++) log.write(record());
    expect(posted.map(({ count }) => count)).toEqual([BATCH_LINES_MAX, BATCH_LINES_MAX]);
    log.flush();
    expect(posted[2]!.count).toBe(5);
    expect(log.droppedCount).toBe(0);
  });

  test("a writer that takes nothing bounds what is under way", () => {
    const credit = new LogCredit();
    const { log, posted } = make(1, new LogCredit(credit.buffer));
    expect(credit.take(IN_FLIGHT_BYTES_MAX - 10)).toBe(true);
    log.write(record());
    log.flush();
    expect(posted).toEqual([]);
    expect(log.droppedCount).toBe(1);
    credit.giveBack(IN_FLIGHT_BYTES_MAX - 10);
    log.write(record());
    log.flush();
    expect(posted).toHaveLength(1);
  });
});
