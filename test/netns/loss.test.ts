// A wire that loses half of the packets in each direction, and then none: what is open goes on, what is new comes through or says why, no
// byte is wrong, and afterwards nothing is left of it. Packets are dropped by chance in the forwarding of one node.

import { afterAll, beforeAll, expect, test } from "bun:test";
import { unsealed } from "../kit/box.ts";
import { program } from "../kit/mesh.ts";
import { ECHO_PORT, Shop } from "../kit/shop.ts";
import { describeUnless, firstReason, needsProgram } from "../kit/skip.ts";
import { until } from "../kit/until.ts";

/** Below what a tunnel waits for the answer to a PING: it need not die of it. */
const LOSSY_MS = 12_000;
const CLIENTS = 8;
/** TCP sends again after seconds by then. */
const RECOVERS_MS = 45_000;
const GROWTH_BYTES_MAX = 64e6;
const ANSWERS = /^200 far to /;

describeUnless(firstReason(unsealed, needsProgram("nft")))("a wire that loses half of the packets", () => {
  let shop: Shop;
  beforeAll(async () => void (shop = await Shop.open()), 60_000);
  afterAll(async () => await shop?.[Symbol.asyncDispose](), 30_000);

  const rules = async (...commands: readonly string[]): Promise<void> => {
    for (const command of commands) {
      const { exitCode, stderr } = await shop.east.run(["nft", ...command.split(" ")]);
      if (exitCode !== 0) throw new Error(`nft ${command}: ${stderr}`);
    }
  };

  test("what is open goes on, what is new comes through or says why, and nothing is left", async () => {
    const { client, far, mesh } = shop;
    const before = mesh.agents.map((agent) => agent.residentBytes());
    await until("traffic", 10_000, async () => ANSWERS.test(await shop.get(client, far.ipv4)));
    let said = "";
    const talk = client.exec(program("talk", far.ipv4, ECHO_PORT), { stdout: "pipe", stderr: "inherit" });
    void (async () => {
      for await (const chunk of talk.stdout as ReadableStream<Uint8Array>) said += new TextDecoder().decode(chunk);
    })();
    await until("the open connection to talk", 10_000, () => said.includes("beat 2"));

    await rules("add table inet lossy", "add chain inet lossy wire { type filter hook forward priority 0 ; }", "add rule inet lossy wire numgen random mod 2 0 counter drop");
    const endMs = performance.now() + LOSSY_MS;
    const answers = await Promise.all(Array.from({ length: CLIENTS }, async () => {
      const got: string[] = [];
      while (performance.now() < endMs) got.push(await shop.get(client, far.ipv4));
      return got;
    }));
    const lost = Number(/packets (\d+)/.exec((await shop.east.run(["nft", "list", "table", "inet", "lossy"])).stdout)?.[1]);
    // How many there are is TCP's choice: everything between the nodes is on few connections, each of which waits longer every time.
    expect(lost, "packets were lost").toBeGreaterThan(0);
    await rules("delete table inet lossy");

    // Whoever was answered was answered rightly; the others were told.
    for (const answer of answers.flat()) expect(answer).toMatch(/^(200 far to |failed )/);
    const beats = said.length;
    await until("the open connection to go on", RECOVERS_MS, () => said.length > beats + 20);
    expect(said).not.toContain("ended");
    for (let i = 0; i < CLIENTS; i++) expect(await shop.get(client, far.ipv4)).toMatch(ANSWERS);
    talk.kill();
    await talk.exited;
    for (const agent of mesh.agents) {
      await until("no connection is left", RECOVERS_MS, async () => (await agent.metric("istio_tcp_connections_opened_total")) === (await agent.metric("istio_tcp_connections_closed_total")));
      expect(await agent.metric("weft_handshakes_under_way")).toBe(0);
    }
    for (const [i, agent] of mesh.agents.entries()) expect(agent.residentBytes() - before[i]!).toBeLessThan(GROWTH_BYTES_MAX);
  }, 150_000);
});
