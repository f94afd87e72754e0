// Slow readers by the thousand: what an agent holds for them is bounded by --buffer-limit, whatever the number of connections and the size
// of their windows; those who stopped reading go first, and everybody else is served.

import { afterAll, beforeAll, expect } from "bun:test";
import { item } from "../kit/bad-input.ts";
import { unsealed } from "../kit/box.ts";
import { HbonePeer, StalledServer } from "../kit/hostile-peer.ts";
import { data, settings } from "../kit/http2-peer.ts";
import { serve } from "../kit/mesh.ts";
import { until } from "../kit/until.ts";
import { Siege } from "../kit/siege.ts";
import { HTTP_PORT } from "../kit/shop.ts";
import { describeUnless } from "../kit/skip.ts";

const LIMIT = 32 * 1024 * 1024;
/** Within one turn a quarter more may come in, and one read. */
const OVERSHOOT = LIMIT / 4 + 1024 * 1024;
/** The agent's own growth under load: HTTP/2 state of a thousand streams, garbage not yet collected. */
const WORKING_BYTES = 128 * 1024 * 1024;
const STALLED_PORT = 8_700;

describeUnless(unsealed)("hostile slowness", () => {
  let siege: Siege;
  beforeAll(async () => {
    siege = await Siege.open({ flags: ["--buffer-limit", String(LIMIT)] });
    await serve(siege.client, "http", HTTP_PORT, "client");
  }, 60_000);
  afterAll(async () => await siege?.[Symbol.asyncDispose]());

  /** The largest of what was seen while something went on. */
  class Peak {
    bufferedBytes = 0;
    growthBytes = 0;
    readonly #before = siege.agent.residentBytes();

    async look(): Promise<void> {
      this.bufferedBytes = Math.max(this.bufferedBytes, await siege.metric("weft_buffered_bytes"));
      this.growthBytes = Math.max(this.growthBytes, siege.agent.residentBytes() - this.#before);
    }
  }

  item("a thousand applications that do not read", async () => {
    // Small kernel buffers, so that it is the agent that would have to hold the bytes.
    for (const name of ["tcp_rmem", "tcp_wmem"]) siege.far.setSysctl(`net.ipv4.${name}`, "4096 16384 32768");
    using stalled = StalledServer.listen(siege.far, STALLED_PORT);
    const peak = new Peak();
    const peers = await Promise.all(Array.from({ length: 4 }, async () => await siege.tunnel()));
    try {
      const streams = peers.map((peer) => Array.from({ length: 250 }, () => peer.connect(`${siege.far.ipv4}:${STALLED_PORT}`)));
      for (const [i, peer] of peers.entries()) for (const id of streams[i]!) expect(await peer.status(id)).toBe("200");
      let sent = 0;
      await siege.counted("weft_connections_closed_total", { reporter: "destination", code: "limit" }, 1, async () =>
        await siege.counted("weft_buffer_pressure_total", {}, 1, async () => {
          for (let round = 0; round < 12; round++) {
            for (const [i, peer] of peers.entries()) {
              for (const id of streams[i]!) if (peer.resetCode(id) === null) sent += peer.fill(id, 64 * 1024);
              await peer.ping();
            }
            await peak.look();
          }
        }));
      expect(sent).toBeGreaterThan(LIMIT * 1.5);
      expect(peak.bufferedBytes).toBeGreaterThan(LIMIT / 2);
      expect(peak.bufferedBytes).toBeLessThan(LIMIT + OVERSHOOT);
      expect(peak.growthBytes).toBeLessThan(LIMIT + WORKING_BYTES);
      // Those who are shed hear ENHANCE_YOUR_CALM, on their stream alone.
      const shed = peers.flatMap((peer, i) => streams[i]!.map((id) => peer.resetCode(id))).filter((code) => code !== null);
      expect(new Set(shed)).toEqual(new Set([11]));
      expect(peers.map((peer) => peer.goawayCode)).toEqual(peers.map(() => null));
      // Back to reading: what was kept arrives, and nothing stays counted.
      stalled.resume();
      await until("all to be read", 10_000, async () => (await siege.metric("weft_buffered_bytes")) === 0);
      expect(await siege.lives()).toBe(true);
    } finally {
      for (const peer of peers) peer[Symbol.dispose]();
    }
    await until("no stream to be left", 10_000, async () => (await siege.metric("weft_tunnel_streams_open", { direction: "inbound" })) === 0);
    expect(await siege.metric("weft_buffered_bytes")).toBe(0);
  }, 120_000);

  item("hundreds of clients that do not read", async () => {
    const peak = new Peak();
    // An idle agent reads each answer in pieces as small as a packet before it stops reading: three tunnels hold enough even so.
    const peers = await Promise.all(Array.from({ length: 3 }, async () => await HbonePeer.open(siege.rival, { ip: siege.client.ipv4, port: 15008 }, siege.leaf())));
    using _peers = { [Symbol.dispose]: () => peers.forEach((peer) => peer[Symbol.dispose]()) };
    const streams: { readonly peer: HbonePeer; readonly id: number }[] = [];
    for (const peer of peers) {
      peer.write(settings([4, 0]));
      await peer.ping();
      const ids = Array.from({ length: 900 }, () => peer.connect(`${siege.client.ipv4}:${HTTP_PORT}`));
      for (const id of ids) await peer.status(id);
      streams.push(...ids.map((id) => ({ peer, id })));
    }
    await siege.counted("weft_buffer_pressure_total", {}, 1, async () => {
      for (const [i, { peer, id }] of streams.entries()) {
        if (peer.resetCode(id) === null) peer.write(data(id, "GET /bytes/300000 HTTP/1.1\r\nhost: far\r\n\r\n"));
        if (i % 50 === 49) await peak.look();
      }
      for (let i = 0; i < 20; i++) {
        for (const peer of peers) await peer.ping();
        await peak.look();
      }
    });
    expect(peak.bufferedBytes).toBeLessThan(LIMIT + OVERSHOOT);
    expect(peak.growthBytes).toBeLessThan(LIMIT + WORKING_BYTES);
    expect(await siege.lives()).toBe(true);
  }, 60_000);

  item("under pressure the stalled give way, and those that share their tunnel go on", async () => {
    using stalled = StalledServer.listen(siege.far, STALLED_PORT);
    using peer = await siege.tunnel();
    await until("the pressure of before to be over", 10_000, async () => (await siege.metric("weft_buffered_bytes")) === 0);
    const ids = Array.from({ length: 20 }, () => peer.connect(`${siege.far.ipv4}:${STALLED_PORT}`));
    for (const id of ids) expect(await peer.status(id)).toBe("200");
    await siege.counted("weft_buffer_shed_total", { why: "stalled" }, 1, async () => {
      // Until the whole window of the tunnel is held by those who do not read.
      await until("the tunnel to be full", 10_000, async () => {
        for (const id of ids) peer.fill(id, 1024 * 1024);
        await peer.ping();
        return peer.windowOf(0) < 64 * 1024;
      });
      await until("one to give way", 20_000, () => ids.some((id) => peer.resetCode(id) === 11));
    });
    expect(stalled.connections).toBeLessThan(20);
    const id = peer.connect(`${siege.far.ipv4}:${HTTP_PORT}`);
    expect(await peer.status(id)).toBe("200");
    // Its credit comes back when the agent has let go of what the stalled held.
    await until("the tunnel to take more", 10_000, async () => {
      await peer.ping();
      return peer.windowOf(0) >= 100;
    });
    expect(peer.fill(id, 100)).toBe(100);
  }, 60_000);
});
