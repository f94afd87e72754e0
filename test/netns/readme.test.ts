// README.md as a stranger would use it: its YAML in a directory, `weft up`, and curl between the two workloads.

import { expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Mesh, serve } from "../kit/mesh.ts";
import { MeshNetwork, type Workload } from "../kit/network.ts";
import { until } from "../kit/until.ts";

setDefaultTimeout(60_000);

const readme = readFileSync(join(import.meta.dir, "../../README.md"), "utf8");
const [optIn] = [...readme.matchAll(/```yaml\n([\s\S]*?)```/g)].map((match) => match[1]!);

test("README.md: the namespace that is opted in works as it is written", async () => {
  await using network = MeshNetwork.create();
  const node = network.node("a");
  const [web, front] = [node.workload("web-1", { ipv4: "198.18.1.10" }), node.workload("front-1", { ipv4: "198.18.1.11" })];
  await serve(web, "http", 8080, "web");
  await using mesh = Mesh.create({ nodes: [node] });
  mesh.write("shop.yaml", optIn!);
  await mesh.start();
  const ask = async (from: Workload): Promise<string> => (await from.run(["curl", "-sS", "--max-time", "5", "-w", "%{http_code}", "http://198.18.255.10/"])).stdout;
  await until(() => `the front to be answered; the log:\n${mesh.agent(node).log.slice(-3000)}`, 20_000, async () => /^web to .*\n200$/.test(await ask(front)));
  // The policy lets in the front alone.
  await until("anybody else to be refused", 10_000, async () => (await ask(web)).endsWith("000"));
  expect(await ask(front)).toEndWith("200");
  expect(mesh.agent(node).log).not.toMatch(/\t(warn|error)\tconfig\t/);
});
