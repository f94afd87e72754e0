// Network namespaces that come, go and are replaced under one path, as those of pods are: the agent follows.

import { afterAll, beforeAll, expect, test } from "bun:test";
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { MNT_DETACH, mount, MS_BIND, umount } from "../../src/net/libc.ts";
import { unsealed } from "../kit/box.ts";
import { Agent, ask, documents, entryYaml, program, serve } from "../kit/mesh.ts";
import { until } from "../kit/until.ts";
import type { Workload } from "../kit/network.ts";
import { ECHO_PORT, HTTP_PORT, Shop } from "../kit/shop.ts";
import { describeUnless } from "../kit/skip.ts";

const PATH = "/run/netns/pod";

describeUnless(unsealed)("a namespace under a path", () => {
  let shop: Shop;
  let first: Workload;
  let second: Workload;
  beforeAll(async () => {
    shop = await Shop.open();
    [first, second] = [shop.west.workload("pod-1"), shop.west.workload("pod-2")];
    for (const pod of [first, second]) {
      await serve(pod, "http", HTTP_PORT, pod.name);
      await serve(pod, "echo", ECHO_PORT);
    }
  }, 60_000);
  afterAll(async () => {
    umount(PATH, MNT_DETACH);
    rmSync(PATH, { force: true });
    await shop?.[Symbol.asyncDispose]();
  });

  /** What a container runtime does with the file of a pod's namespace. */
  function put(pod: Workload): void {
    expect(mount(pod.namespacePath, PATH, "", MS_BIND)).toBe(0);
  }

  const entry = (pod: Workload): string => entryYaml(pod, { app: "pod", serviceAccount: "pod", annotations: { "weft.dev/netns": PATH } }).replaceAll('"pod-1"', '"pod"').replaceAll('"pod-2"', '"pod"');

  test("that is not mounted yet is waited for, and holds up nobody", async () => {
    const agent = shop.mesh.agent(shop.west);
    const mark = agent.mark();
    writeFileSync(PATH, "");
    shop.mesh.write("pod.yaml", documents(entry(first)));
    expect(await agent.logged(/shop\/pod could not be put into the mesh/, mark)).toContain("(namespace)");
    expect(await agent.metric("workload_manager_pending_proxy_count")).toBe(1);
    // An agent that starts with such a workload is ready for the others, and stays so through every attempt.
    expect(await agent.stop()).toBe(0);
    expect(agent.log.slice(mark)).toMatch(/\d+ workloads? stays? cut off until the next start \(--on-stop hold\)/);
    const restarted = agent.mark();
    await agent.start();
    await agent.admin("POST", "/logging?level=debug");
    await agent.logged(/\tdebug\tztunnel\tattempt \d+ failed \(namespace: .*workload=".*shop\/pod"/, restarted, 10_000);
    const probe = () => ask(shop.west, "get", "http://127.0.0.1:15021/healthz/ready");
    expect(await probe()).toMatch(/^200 ready\n?.*workloads: not in the mesh, tried again: .*shop\/pod: namespace: /s);
    expect(await agent.metric("workload_manager_pending_proxy_count")).toBe(1);
    expect(await shop.get(shop.client, shop.far.ipv4)).toStartWith("200");
    put(first);
    await agent.logged(/shop\/pod is in the mesh/, restarted, 10_000);
    expect(await probe()).not.toContain("workloads");
    await agent.logged(/\tdebug\tztunnel\tthe redirection rules are in force workload=".*shop\/pod"/, restarted);
    await agent.admin("POST", "/logging?level=info");
    expect(agent.log.slice(restarted)).not.toContain("not ready any more");
    await until("the pod to be reached by a tunnel", 5_000, async () => (await shop.get(shop.client, first.ipv4)) === `200 pod-1 to ${shop.client.ipv4}`);
  }, 60_000);

  test("replaced by another, the old one's connections end and the new one is in the mesh", async () => {
    const agent = shop.mesh.agent(shop.west);
    const talk = shop.client.exec(program("talk", first.ipv4, ECHO_PORT), { stderr: "inherit" });
    let heard = "";
    void (async () => {
      for await (const chunk of talk.stdout as ReadableStream<Uint8Array>) heard += Buffer.from(chunk).toString();
    })();
    await until("the connection to talk", 5_000, () => heard.includes("beat 2"));
    const mark = agent.mark();
    expect(umount(PATH, MNT_DETACH)).toBe(0);
    put(second);
    await agent.logged(/another network namespace is at \/run\/netns\/pod now/, mark, 5_000);
    await agent.logged(/shop\/pod is in the mesh/, mark, 5_000);
    await until("the old connection to end", 5_000, () => heard.includes("ended"));
    shop.mesh.write("pod.yaml", documents(entry(second)));
    const from = agent.mark();
    // Until the client's node has heard of the new address it comes in the clear, which is let in too.
    const byTunnel = { direction: "inbound", "dst.workload": "pod", "src.identity": "spiffe://cluster.local/ns/shop/sa/client", "dst.identity": "spiffe://cluster.local/ns/shop/sa/pod" };
    await until("the new pod to be reached by a tunnel", 5_000, async () => {
      expect(await shop.get(shop.client, second.ipv4)).toBe(`200 pod-2 to ${shop.client.ipv4}`);
      return agent.connectionsSoFar(byTunnel, from).length > 0;
    });
  }, 60_000);

  test("none on a node of another name, and the agent says so", async () => {
    const agent = shop.mesh.agent(shop.west);
    expect(agent.log).not.toContain("no workload lives on this node");
    await agent.stop();
    const stray = new Agent(shop.west, agent.argv.map((word, i) => (agent.argv[i - 1] === "--node" ? "nowhere" : word)), join(shop.mesh.directory, "nowhere.log"));
    await stray.start();
    try {
      await stray.logged(/configuration applied .*node="nowhere"/);
      expect(await stray.logged(/\twarn\tconfig\tno workload lives on this node/)).toContain("node (nowhere); the configuration has them on: east, west. Is --node right?");
    } finally {
      await stray.stop();
    }
  }, 60_000);
});
