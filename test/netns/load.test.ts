// Much at once: one long stream beside many short connections, through the same two agents; then the label put on and taken off
// under load. Nothing may be lost, repeated, mixed up or refused.
//
// A short run by default; WEFT_TEST_LOAD=full moves 10 GB beside 10 000 connections.

import { afterAll, beforeAll, expect, test } from "bun:test";
import { LEAVE_MS } from "../../src/ztunnel/workload-attacher.ts";
import { unsealed } from "../kit/box.ts";
import { program } from "../kit/mesh.ts";
import { until } from "../kit/until.ts";
import type { Workload } from "../kit/network.ts";
import { CHANGE_MS, ECHO_PORT, HTTP_PORT, SERVICE_ECHO, Shop, urlOf, VIP } from "../kit/shop.ts";
import { describeUnless, needsProgram, testUnless } from "../kit/skip.ts";

const FULL = process.env["WEFT_TEST_LOAD"] === "full";
const STREAM_BYTES = FULL ? 10e9 : 1e9;
const CONNECTIONS = FULL ? 10_000 : 2_000;
const CONCURRENCY = 64;
const STREAM_MS = FULL ? 450_000 : 90_000;
/** Idle when their client is killed: so many at once that ends cross on the way. */
const HELD = 2_000;
const HELD_MS = 30_000;
/** A socket that waits for an end that is lost stays for a minute or more. */
const ENDED_MS = 10_000;
/** What an agent may grow by while it carries all of this: windows and buffers, not the traffic itself. */
const GROWTH_BYTES_MAX = 256e6;
/** Taken off for a moment, or until the listeners are gone too, in turn. */
const TOGGLES = FULL ? 60 : 12;

describeUnless(unsealed)("load", () => {
  let shop: Shop;
  beforeAll(async () => void (shop = await Shop.open()), 60_000);
  afterAll(async () => await shop?.[Symbol.asyncDispose](), 30_000);

  for (const path of ["across", "same node"] as const) {
    test(`${path}: ${STREAM_BYTES / 1e9} GB there and back beside ${CONNECTIONS} connections, every byte compared`, async () => {
      const server = path === "across" ? shop.far : shop.near;
      const before = shop.mesh.agents.map((agent) => agent.residentBytes());
      const stream = shop.ok(shop.client, "stream", server.ipv4, ECHO_PORT, STREAM_BYTES);
      const storm = shop.ok(shop.client, "storm", server.ipv6 ?? server.ipv4, ECHO_PORT, CONNECTIONS, CONCURRENCY);
      expect(await storm).toBe(`ok ${CONNECTIONS}`);
      expect(await stream).toStartWith(`ok ${STREAM_BYTES} `);
      for (const [i, agent] of shop.mesh.agents.entries()) expect(agent.residentBytes() - before[i]!).toBeLessThan(GROWTH_BYTES_MAX);
    }, STREAM_MS);
  }

  test("uncaptured client: a stream and connections beside it, through the agent of the server", async () => {
    const [stream, storm] = await Promise.all([
      shop.ok(shop.stranger, "stream", shop.far.ipv4, ECHO_PORT, STREAM_BYTES / 10),
      shop.ok(shop.stranger, "storm", shop.far.ipv4, ECHO_PORT, CONNECTIONS / 4, CONCURRENCY),
    ]);
    expect([stream.split(" ")[0], storm]).toEqual(["ok", `ok ${CONNECTIONS / 4}`]);
  }, STREAM_MS);

  test("by service: every connection of a storm arrives at one of the endpoints", async () => {
    expect(await shop.ok(shop.client, "storm", VIP, SERVICE_ECHO, CONNECTIONS / 2, CONCURRENCY)).toBe(`ok ${CONNECTIONS / 2}`);
  }, STREAM_MS);

  test("nothing is left over: no live connection in either agent", async () => {
    for (const agent of shop.mesh.agents) {
      await until(`no connections on ${agent.node.name}`, 5_000, async () => {
        const dump = JSON.parse(await agent.admin("GET", "/config_dump")) as { workloadState: Record<string, { connections: { inbound: unknown[]; outbound: unknown[] } }> };
        return Object.values(dump.workloadState).every(({ connections }) => connections.inbound.length + connections.outbound.length === 0);
      });
    }
  });

  testUnless(needsProgram("ss"))("nothing is left over: every socket has seen its end, in each workload's namespace, of clients that are gone with thousands open", async () => {
    for (const server of [shop.far, shop.near]) {
      const child = shop.client.exec(program("hold", server.ipv4, ECHO_PORT, HELD), { stderr: "inherit" });
      const heard = collect(child.stdout as ReadableStream<Uint8Array>);
      await until(`${HELD} connections to ${server.name}`, HELD_MS, () => heard.text.includes("\n"));
      expect(heard.text.trim()).toBe(`holds ${HELD}`);
      child.kill("SIGKILL");
      await child.exited;
    }
    for (const place of [shop.client, shop.near, shop.far, shop.stranger]) {
      const unfinished = async (): Promise<string[]> => (await place.run(["ss", "-tanH"])).stdout.split("\n").filter((line) => line !== "" && !/^(LISTEN|TIME-WAIT) /.test(line) && !/:15008(\s|$)/.test(line));
      // What is left then fails the next line, which shows it.
      await until(`no socket half closed in ${place.name}`, ENDED_MS, async () => (await unfinished()).length === 0).catch(() => {});
      expect({ place: place.name, unfinished: (await unfinished()).slice(0, 5) }).toEqual({ place: place.name, unfinished: [] });
    }
  }, 90_000);

  test(`the label is put on and taken off ${TOGGLES} times under load: no request fails, no open connection ends`, async () => {
    const loads: [string, Workload, Workload][] = [["captured, across", shop.client, shop.far], ["captured, same node", shop.client, shop.near], ["uncaptured", shop.stranger, shop.far]];
    const running = loads.map(([name, from, to]) => ({ name, child: from.exec(program("load", urlOf(to.ipv4, HTTP_PORT), 4), { stderr: "inherit" }) }));
    const said = running.map(({ child }) => collect(child.stdout as ReadableStream<Uint8Array>));
    await until("every load to be going", 20_000, () => said.every(({ text }) => text.includes("going")));
    const talks: { readonly since: string; readonly heard: { text: string }; readonly child: Bun.Subprocess }[] = [];
    const talk = async (since: string): Promise<void> => {
      for (const server of [shop.far, shop.near]) {
        const child = shop.client.exec(program("talk", server.ipv4, ECHO_PORT), { stderr: "inherit" });
        const heard = collect(child.stdout as ReadableStream<Uint8Array>);
        talks.push({ since: `${since}, to ${server.name}`, heard, child });
        await until("the open connection to talk", 20_000, () => heard.text.includes("beat 2"));
      }
    };
    await talk("opened in the mesh");
    for (let i = 0; i < TOGGLES; i++) {
      const marks = shop.mesh.agents.map((agent) => agent.mark()) as [number, number];
      const before = talks.map(({ heard }) => heard.text.length);
      shop.label(i % 2 === 1);
      if (i % 2 === 1) await shop.attached(marks);
      else for (const [j, agent] of shop.mesh.agents.entries()) await agent.logged(i % 4 === 0 ? /is out of the mesh/ : /configuration applied .*captured=0/, marks[j], CHANGE_MS + LEAVE_MS);
      if (i === 0) await talk("opened outside the mesh");
      // Each state lasts until every open connection has moved on in it.
      await until("the open connections to go on", 10_000, () => talks.every(({ heard }, j) => heard.text.length > (before[j] ?? 0) + 30));
    }
    for (const { since, heard } of talks) expect(`${since}: ${heard.text.includes("ended")}`).toBe(`${since}: false`);
    for (const [i, { name, child }] of running.entries()) {
      child.kill("SIGTERM");
      await child.exited;
      expect(`${name}: ${said[i]!.text.trimEnd().split("\n").at(-1)}`).toMatch(new RegExp(`^${name}: ok \\d{2,}$`));
    }
    for (const { child } of talks) child.kill();
  }, 240_000);
});

/** What a stream has said so far, growing. */
function collect(stream: ReadableStream<Uint8Array>): { text: string } {
  const said = { text: "" };
  void (async () => {
    for await (const chunk of stream) said.text += Buffer.from(chunk).toString();
  })();
  return said;
}
