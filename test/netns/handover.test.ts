// An agent replaced by another process while traffic flows: nothing is refused, nothing is lost, live connections go on to their own
// end. And what happens when the replacing goes wrong half-way, when two are started by mistake, and when one is killed.

import { afterAll, beforeAll, expect, test } from "bun:test";
import { unsealed } from "../kit/box.ts";
import { promised } from "../kit/fair-time.ts";
import { ask, policyYaml, program } from "../kit/mesh.ts";
import { until } from "../kit/until.ts";
import type { Workload } from "../kit/network.ts";
import { CHANGE_MS, ECHO_PORT, HTTP_PORT, RESTART_MS, Shop, urlOf } from "../kit/shop.ts";
import { describeUnless } from "../kit/skip.ts";

const FULL = process.env["WEFT_TEST_LOAD"] === "full";
/** Of each agent. */
const REPLACEMENTS = FULL ? 20 : 4;

describeUnless(unsealed)("an agent that is replaced", () => {
  let shop: Shop;
  beforeAll(async () => void (shop = await Shop.open({ flags: ["--handover-drain", "300s"] })), 60_000);
  afterAll(async () => await shop?.[Symbol.asyncDispose](), 30_000);

  const get = (from: Workload, to: Workload) => shop.get(from, to.ipv4);

  test(`under load, ${REPLACEMENTS} times each: no request fails, no admin request fails, live connections go on`, async () => {
    const { client, near, far, stranger, mesh } = shop;
    const loads = [
      start("captured, across", client, "load", urlOf(far.ipv4, HTTP_PORT), 4), start("captured, same node", client, "load", urlOf(near.ipv4, HTTP_PORT), 4),
      start("uncaptured", stranger, "load", urlOf(far.ipv4, HTTP_PORT), 4),
      start("readiness", shop.east, "load", "http://127.0.0.1:15021/healthz/ready", 1), start("metrics", shop.west, "load", "http://127.0.0.1:15020/metrics", 1),
    ];
    const talks = [start("across", client, "talk", far.ipv4, ECHO_PORT), start("same node", client, "talk", near.ipv4, ECHO_PORT), start("from outside", stranger, "talk", far.ipv4, ECHO_PORT)];
    await until("every load to be going", 10_000, () => loads.every(({ said }) => said.text.includes("going")));
    await until("every open connection to talk", 10_000, () => talks.every(({ said }) => said.text.includes("beat 2")));

    const replaced: Bun.Subprocess[] = [];
    for (let i = 0; i < REPLACEMENTS; i++) {
      for (const agent of mesh.agents) {
        // Fewer data threads than before, and more: none of the old listeners may be left alone.
        replaced.push(await agent.replace(["--workers", String(1 + (i % 2))]));
        const before = talks.map(({ said }) => said.text.length);
        await until("the open connections to go on", 5_000, () => talks.every(({ said }, j) => said.text.length > before[j]! + 20));
      }
    }
    for (const { name, said } of talks) expect(`${name}: ${said.text.includes("ended")}`).toBe(`${name}: false`);
    for (const { name, child, said } of loads) {
      child.kill("SIGTERM");
      await child.exited;
      expect(`${name}: ${said.text.trimEnd().split("\n").at(-1)}`).toMatch(new RegExp(`^${name}: ok \\d{2,}$`));
    }
    for (const { child } of talks) child.kill();
    // Nothing holds them any more: each ends by itself, long before its time is up.
    for (const process of replaced) expect(await process.exited).toBe(0);
    for (const agent of mesh.agents) await agent.logged(/the predecessor has ended/, 0);
  }, 120_000);

  test("rules that change while the predecessor drains hold for its connections too", async () => {
    const { client, far, west } = shop;
    const agent = shop.mesh.agent(west);
    const talk = start("across", client, "talk", far.ipv4, ECHO_PORT);
    await until("the connection to talk", 5_000, () => talk.said.text.includes("beat 2"));
    const replaced = await agent.replace();
    const deny = policyYaml("AuthorizationPolicy", { action: "DENY", rules: [{ to: [{ operation: { ports: [String(ECHO_PORT)] } }] }] });
    shop.mesh.write("under-test.yaml", deny);
    await promised("the old connection to be cut", CHANGE_MS, () => talk.said.text.includes("ended"));
    shop.mesh.remove("under-test.yaml");
    expect(await replaced.exited).toBe(0);
    // The next test connects to the same port.
    await promised("the rule to be gone", 2 * CHANGE_MS, async () => (await ask(client, "storm", far.ipv4, ECHO_PORT, 1, 1)).startsWith("ok"));
  }, 60_000);

  test("a workload leaves and comes back while a predecessor still drains", async () => {
    const { client, far, stranger, mesh } = shop;
    const talks = [start("across", client, "talk", far.ipv4, ECHO_PORT), start("from outside", stranger, "talk", far.ipv4, ECHO_PORT)];
    await until("the connections to talk", 5_000, () => talks.every(({ said }) => said.text.includes("beat 2")));
    const replaced = [];
    for (const agent of mesh.agents) replaced.push(await agent.replace());
    const marks = mesh.agents.map((agent) => agent.mark()) as [number, number];
    shop.label(false);
    for (const [i, agent] of mesh.agents.entries()) await agent.logged(/is out of the mesh/, marks[i]!);
    const before = talks.map(({ said }) => said.text.length);
    await until("the connections of the predecessor to go on", 3_000, () => talks.every(({ said }, j) => said.text.length > before[j]! + 20));
    const again = mesh.agents.map((agent) => agent.mark()) as [number, number];
    shop.label(true);
    await shop.attached(again);
    expect(await get(client, far)).toStartWith("200");
    for (const { child, said } of talks) {
      expect(said.text).not.toContain("ended");
      child.kill();
    }
    for (const process of replaced) expect(await process.exited).toBe(0);
  }, 60_000);

  test("SIGUSR2: it replaces itself by the program in its file", async () => {
    const { client, far, west } = shop;
    const agent = shop.mesh.agent(west);
    const mark = agent.mark();
    const pid = agent.pid;
    process.kill(pid, "SIGUSR2");
    const [, successor] = /pid=(\d+)/.exec(await agent.logged(/starting a process in our place/, mark, 5_000))!;
    await agent.logged(/took the place of the running process/, mark, 10_000);
    expect(await agent.stop()).toBe(0);
    expect(await get(client, far)).toStartWith("200");
    // It is nobody's child any more but ours to end: its place is taken by one that the kit knows.
    await agent.start();
    await until("the process in between to end", 10_000, () => !isRunning(Number(successor)));
  }, 60_000);

  test("a successor that cannot come up leaves everything as it was", async () => {
    const { client, far, west } = shop;
    const agent = shop.mesh.agent(west);
    const mark = agent.mark();
    // It gets all the sockets, and then finds another port that it was told to use taken.
    const failing = agent.spawn(["--metrics-address", `${west.ipv4}:15021`]);
    expect(await failing.exited).toBe(1);
    await agent.logged(/cannot listen on .*15021: the port is in use/, mark);
    await agent.logged(/the handover came to nothing, this process goes on/, mark);
    expect(await get(client, far)).toStartWith("200");

    // Killed when it has the sockets, and perhaps more.
    const again = agent.mark();
    const killed = agent.spawn();
    await agent.logged(/another process asks for our place/, again);
    killed.kill("SIGKILL");
    await killed.exited;
    await agent.logged(/the handover came to nothing|has taken our place/, again);
    expect(agent.log.slice(again)).not.toContain("has taken our place");
    expect(await get(client, far)).toStartWith("200");

    // The rules are the first one's still: it can take them away.
    const marks = shop.mesh.agents.map((each) => each.mark()) as [number, number];
    shop.label(false);
    for (const [i, each] of shop.mesh.agents.entries()) await each.logged(/is out of the mesh/, marks[i]!);
    expect(await get(client, far)).toStartWith("200");
    const back = shop.mesh.agents.map((each) => each.mark()) as [number, number];
    shop.label(true);
    await shop.attached(back);
  }, 60_000);

  test("a predecessor that hangs is named, and keeps its place until it is ended", async () => {
    const { client, far, west } = shop;
    const agent = shop.mesh.agent(west);
    const mark = agent.mark();
    process.kill(agent.pid, "SIGSTOP");
    const successor = agent.spawn();
    expect(await successor.exited).toBe(1);
    expect(await agent.logged(/did not answer within/, mark)).toContain(`kill -9 ${agent.pid}`);
    process.kill(agent.pid, "SIGCONT");
    await until("traffic to flow", 5_000, async () => (await get(client, far)).startsWith("200"));
  }, 60_000);

  test("a second start without handover is refused, with words that help", async () => {
    const { client, far, west } = shop;
    const agent = shop.mesh.agent(west);
    const sameState = await west.run([...agent.argv, "--no-handover"]);
    expect(sameState.exitCode).toBe(1);
    expect(sameState.stderr).toMatch(/is in use by another weft \(process \d+ up running\): stop it first, or start with --handover/);
    const state = agent.argv[agent.argv.indexOf("--state") + 1]!;
    const otherState = await west.run(agent.argv.map((word) => (word === state ? `${shop.mesh.directory}/other` : word)));
    expect(otherState.exitCode).toBe(1);
    expect(otherState.stderr).toMatch(/cannot listen on 127\.0\.0\.1:15000: the port is in use/);
    expect(await get(client, far)).toStartWith("200");
  }, 60_000);

  test("killed under load and started again with the CA away: traffic flows within two seconds", async () => {
    const { near, far, east, west, mesh } = shop;
    expect(await mesh.agent(east).stop()).toBe(0);
    await mesh.agent(west).kill();
    const starting = mesh.agent(west).start();
    try {
      await promised("traffic to flow", RESTART_MS, async () => (await get(shop.stranger, far)).startsWith("200"));
    } finally {
      await starting;
      await mesh.agent(east).start();
    }
    await until("the mesh to be whole", 5_000, async () => (await get(shop.client, far)).startsWith("200"));
    expect(await get(shop.client, near)).toStartWith("200");
  }, 90_000);

  test("a stop holds the workloads: nothing passes unguarded, until the next start or a release", async () => {
    const { stranger, far, west, mesh } = shop;
    const agent = mesh.agent(west);
    expect(await agent.stop()).toBe(0);
    expect(await get(stranger, far)).toStartWith("failed");
    await agent.start(["--on-stop", "release"]);
    expect(await get(stranger, far)).toStartWith("200");
    expect(await agent.stop()).toBe(0);
    const mark = agent.mark();
    expect(await get(stranger, far)).toBe(`200 far to ${stranger.ipv4}`);
    expect(agent.log.slice(mark)).toBe("");
    await agent.start();
  }, 60_000);
});

/** A program in a workload, with what it says. */
function start(name: string, from: { exec: Workload["exec"] }, ...argv: readonly [string, ...(string | number)[]]) {
  const child = from.exec(program(...argv), { stderr: "inherit" });
  const said = { text: "" };
  void (async () => {
    for await (const chunk of child.stdout as ReadableStream<Uint8Array>) said.text += Buffer.from(chunk).toString();
  })();
  return { name, child, said };
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
