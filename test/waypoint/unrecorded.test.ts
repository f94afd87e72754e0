// `weft waypoint` whose configuration does not say who it is: what its readiness, its log and a peer of it are told, and that all is well
// as soon as it does.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect as connectNet } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { newToken } from "../../src/ca/tokens.ts";
import { clientHello } from "../kit/client-hello.ts";
import { until } from "../kit/until.ts";
import { WAYPOINT_YAML, WaypointProcess } from "../kit/waypoint-process.ts";

const ROOT = join(import.meta.dir, "../..");
const ENTRY = `
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: { name: waypoint-1, namespace: shop, labels: { networking.istio.io/tunnel: http, gateway.networking.k8s.io/gateway-name: waypoint } }
spec: { address: 198.18.7.9, serviceAccount: waypoint }
`;
const TLS_ALERT = 0x15;
const TLS_HANDSHAKE = 0x16;

let directory: string;
let ca: Bun.Subprocess;
let waypoint: WaypointProcess;

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), "weft-unrecorded-"));
  const { token, sha256 } = newToken();
  const path = (name: string): string => join(directory, name);
  writeFileSync(path("token"), token, { mode: 0o600 });
  writeFileSync(path("tokens.json"), JSON.stringify({ tokens: [{ name: "waypoint", sha256, namespaces: "all" }] }), { mode: 0o600 });
  const ports = ["--admin-address", "127.0.0.1:16000", "--metrics-address", "127.0.0.1:16020", "--readiness-address", "127.0.0.1:16021"];
  ca = Bun.spawn([process.execPath, join(ROOT, "src/main.ts"), "ca", "--state", path("ca"), "--ca-listen", "127.0.0.1:15012", "--ca-tokens", path("tokens.json"), ...ports], { stdout: "ignore", stderr: Bun.file(path("ca.log")) });
  await until("the CA to be ready", 20_000, () => fetch("http://127.0.0.1:16021/healthz/ready").then(({ ok }) => ok, () => false));
  waypoint = WaypointProcess.begin({
    yaml: { "shop.yaml": WAYPOINT_YAML },
    flags: ["--ca-address", "127.0.0.1:15012", "--ca-root", path("ca/ca/root-cert.pem"), "--auth-token", path("token"), "--workload-wait", "200ms", "--workers", "2"],
  });
}, 60_000);

afterAll(async () => {
  await waypoint[Symbol.asyncDispose]();
  ca.kill("SIGKILL");
  await ca.exited;
  rmSync(directory, { recursive: true, force: true });
});

/** The first bytes that port 15008 answers a ClientHello with. */
async function answerAt15008(): Promise<number[]> {
  const hello = await clientHello();
  return await new Promise((resolve, reject) => {
    const socket = connectNet(15008, "127.0.0.1", () => socket.write(hello));
    socket.once("data", (bytes) => {
      resolve([...Buffer.from(bytes).subarray(0, 7)]);
      socket.destroy();
    });
    socket.once("error", reject);
    socket.once("close", () => reject(new Error("closed without a byte")));
  });
}

describe("a waypoint without a record", () => {
  const readiness = async (): Promise<{ ok: boolean; text: string }> => {
    const answer = await fetch("http://127.0.0.1:15021/healthz/ready");
    return { ok: answer.ok, text: await answer.text() };
  };

  test("is not ready, and says there and in the log what is missing and what to do", async () => {
    const { text } = await until("the reason", 15_000, () => readiness().then((told) => (told.text.includes("identity: ") && !told.text.includes("listeners") ? told : null), () => null)).catch((error: unknown) => {
      throw new Error(`${String(error)}\n${waypoint.log}`);
    });
    for (const said of [text, waypoint.log]) {
      expect(said).toContain("the configuration has no instance of the Gateway shop/waypoint");
      expect(said).toContain("a WorkloadEntry in the namespace shop with this waypoint's address, its serviceAccount and the labels gateway.networking.k8s.io/gateway-name: waypoint and networking.istio.io/tunnel: http");
    }
    // Said once, whatever the number of threads.
    expect(waypoint.log.split("unknown_waypoint").length).toBe(2);
  });

  test("answers whoever wants a tunnel with an alert rather than with silence, and names the reason", async () => {
    expect(await answerAt15008()).toEqual([TLS_ALERT, 3, 3, 0, 2, 2, 80]);
    await until("the line", 5_000, () => waypoint.log.includes("TLS handshake from 127.0.0.1 not begun: the configuration has no instance of the Gateway shop/waypoint"));
    expect(await waypoint.metric("weft_tunnel_handshakes_failed_total", { code: "certificate_missing" })).toBe(1);
  });

  test("shakes hands as soon as it is recorded, and is ready", async () => {
    const waiting = answerAt15008();
    waypoint.write("self.yaml", ENTRY);
    await waypoint.ready();
    expect((await until("a handshake", 10_000, () => answerAt15008().then((bytes) => (bytes[0] === TLS_HANDSHAKE ? bytes : null)))).slice(0, 2)).toEqual([TLS_HANDSHAKE, 3]);
    expect([TLS_ALERT, TLS_HANDSHAKE]).toContain((await waiting)[0]!);
    await until("the word about it", 5_000, () => waypoint.log.includes("the configuration has a record of this waypoint"));
  });
});
