// A clock that jumps by a day under a running agent, forward and back: what is open stays open, peers are judged by the new time, the agent
// gets itself a certificate that fits it. The wall clock is bent with libfaketime (Debian: faketime); durations are not.

import { afterAll, beforeAll, expect } from "bun:test";
import { mkdtempSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { item } from "../kit/bad-input.ts";
import { unsealed } from "../kit/box.ts";
import { DAY_MS, HOUR_MS } from "../kit/certificates.ts";
import { HbonePeer, type Leaf, TlsPeer } from "../kit/hostile-peer.ts";
import { until } from "../kit/until.ts";
import { Siege } from "../kit/siege.ts";
import { ECHO_PORT } from "../kit/shop.ts";
import { describeUnless, firstReason } from "../kit/skip.ts";

const library = [...new Bun.Glob("*/faketime/libfaketimeMT.so.1").scanSync({ cwd: "/usr/lib" })][0];
const reason = firstReason(unsealed, library === undefined ? "needs faketime" : null);
const CHANGE_MS = 15_000;

describeUnless(reason)("a clock that jumps", () => {
  const folder = mkdtempSync(join(tmpdir(), "weft-clock-"));
  const clockPath = join(folder, "clock");
  let siege: Siege;
  beforeAll(async () => {
    writeFileSync(clockPath, "+0d\n");
    const environment = [`LD_PRELOAD=/usr/lib/${library}`, `FAKETIME_TIMESTAMP_FILE=${clockPath}`, "FAKETIME_DONT_FAKE_MONOTONIC=1", "FAKETIME_CACHE_DURATION=1"];
    siege = await Siege.open({ weft: ["env", ...environment, process.execPath, join(import.meta.dir, "../../src/main.ts")] });
  }, 60_000);
  afterAll(async () => {
    await siege?.[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true });
  });

  function jump(days: string): void {
    writeFileSync(clockPath, `${days}\n`);
    utimesSync(clockPath, new Date(), new Date());
  }

  const validAround = (offsetMs: number): Leaf => siege.leaf({ notBeforeMs: Date.now() + offsetMs - HOUR_MS, notAfterMs: Date.now() + offsetMs + HOUR_MS });
  /** `in`, or how the agent ended it. */
  async function attempt(leaf: Leaf): Promise<string> {
    try {
      using _peer = await HbonePeer.open(siege.rival, siege.hbone, leaf);
      return "in";
    } catch (error) {
      return (error as Error).message;
    }
  }
  async function ownCertificate(): Promise<number> {
    using peer = TlsPeer.open(siege.rival, siege.hbone, { leaf: validAround(0) });
    await peer.secured;
    return Date.parse(peer.socket.getPeerCertificate()?.valid_to ?? "");
  }

  item("a day ahead and back under a running agent", async () => {
    using open = await siege.tunnel();
    const id = open.connect(`${siege.far.ipv4}:${ECHO_PORT}`);
    expect(await open.status(id)).toBe("200");
    let echoed = 0;
    const goesOn = async (): Promise<void> => {
      open.fill(id, 10);
      echoed += 10;
      await until("the open stream to go on", 5_000, () => open.bodyOf(id).length === echoed);
    };

    await siege.counted("weft_tunnel_handshakes_failed_total", { direction: "inbound", code: "tls_failed" }, 1, async () => {
      jump("+1d");
      await until("peers to be judged by tomorrow", CHANGE_MS, async () => (await attempt(validAround(0))) !== "in");
    });
    await until("the agent to have a certificate for tomorrow", CHANGE_MS, async () => (await ownCertificate()) > Date.now() + DAY_MS + HOUR_MS);
    expect(await attempt(validAround(DAY_MS))).toBe("in");
    await goesOn();

    jump("+0d");
    await until("peers to be judged by today again", CHANGE_MS, async () => (await attempt(validAround(0))) === "in");
    expect(await attempt(validAround(DAY_MS))).not.toBe("in");
    await goesOn();
    expect(await siege.lives()).toBe(true);
  }, 90_000);
});
