// `npm run demo`: a mesh of two nodes in a sealed box, shown step by step. Every line that it prints was observed, none is assumed:
// a step that does not see what it expects ends the demo with the reason and the agents' last words.

import { existsSync, rmSync } from "node:fs";
import { join } from "node:path";
import { stringify } from "yaml";
import { enteringArgv, runSealed } from "../test/kit/box.ts";
import { ask, documents, entryYaml, Mesh, namespaceYaml, program, serve } from "../test/kit/mesh.ts";
import { until } from "../test/kit/until.ts";
import { MeshNetwork, type Node, type Workload } from "../test/kit/network.ts";
import { Narrator, type Timing } from "./narrator.ts";

const outside = await runSealed(import.meta.path, process.argv.slice(2));
if (outside !== null) process.exit(outside);

const SECRET = "the-secret-of-the-shop";
const WEB_PORT = 8080;
const ECHO_PORT = 9000;
const GREETER_PORT = 9100;
const VIP = "198.18.250.10";
/** What the mesh promises: a change of the configuration is in force within this time, and a node is back within that. */
const CHANGE_MS_PROMISED = 1_000;
const RESTART_MS_PROMISED = 2_000;
/** A busy machine makes everything slower than promised, which the demo then says; beyond this something is broken. */
const GIVE_UP_MS = 10_000;
/** Agents end within a second or two; a busy machine gets some more. */
const TIDY_MS_MAX = 10_000;
/** As a shell reports a program that Ctrl-C ended. */
const STATUS_INTERRUPTED = 130;

const stay = process.argv.includes("--stay");
const narrator = new Narrator();

interface Stage {
  readonly network: MeshNetwork;
  readonly east: Node;
  readonly west: Node;
  readonly front: Workload;
  readonly intruder: Workload;
  readonly web: Workload;
  readonly echo: Workload;
  readonly greeter: Workload;
  readonly cache: Workload;
  readonly mesh: Mesh;
}

function shopYaml(stage: Omit<Stage, "mesh">, ambient: boolean): string {
  const { front, intruder, web, echo, greeter, cache } = stage;
  const service = { apiVersion: "v1", kind: "Service", metadata: { name: "web", namespace: "shop" }, spec: { clusterIP: VIP, selector: { app: "web" }, ports: [{ name: "http", port: 80, targetPort: WEB_PORT }] } };
  return documents(namespaceYaml("shop", ambient), ...[front, intruder, web, echo, greeter, cache].map((workload) => entryYaml(workload)), JSON.stringify(service));
}

const DENY_SPEC = { selector: { matchLabels: { app: "web" } }, action: "DENY", rules: [{ from: [{ source: { notPrincipals: ["cluster.local/ns/shop/sa/front"] } }] }] };
const DENY = JSON.stringify({ apiVersion: "security.istio.io/v1", kind: "AuthorizationPolicy", metadata: { name: "web-only-for-front", namespace: "shop" }, spec: DENY_SPEC });

async function setUp(): Promise<Stage> {
  const network = MeshNetwork.create();
  const [east, west] = [network.node("east"), network.node("west")];
  const front = east.workload("front");
  const intruder = east.workload("intruder");
  const cache = east.workload("cache");
  const web = west.workload("web");
  const echo = west.workload("echo");
  const greeter = west.workload("greeter");
  await Promise.all([
    serve(web, "http", WEB_PORT, SECRET), serve(cache, "http", WEB_PORT, "cached"),
    serve(echo, "echo", ECHO_PORT), serve(greeter, "greeter", GREETER_PORT, "220 greetings"),
  ]);
  const compiled = join(import.meta.dir, "../dist/weft");
  const mesh = Mesh.create({ nodes: [east, west], ...(process.argv.includes("--compiled") && existsSync(compiled) ? { weft: [compiled] } : {}) });
  const stage = { network, east, west, front, intruder, web, echo, greeter, cache, mesh };
  mesh.write("shop.yaml", shopYaml(stage, false));
  return stage;
}

const url = (host: string, port: number) => `http://${host.includes(":") ? `[${host}]` : host}:${port}/`;
/** Both words of the runtime for the kernel's refusal. */
const REFUSED = /^failed (ECONNREFUSED|ConnectionRefused)$/;
const isError = (answer: string) => answer.startsWith("failed");

function expect(seen: string, wanted: RegExp): string {
  if (!wanted.test(seen)) throw new Error(`saw ${JSON.stringify(seen)}, wanted ${wanted}`);
  return seen;
}

/** Asks again and again until the answer is as wanted; the time that took. Slower than promised is told, not thrown. */
async function changeTo(what: string, probe: () => Promise<boolean>, promisedMs: number, sinceMs: number): Promise<Timing> {
  await until(what, GIVE_UP_MS, probe);
  return { tookMs: performance.now() - sinceMs, promisedMs };
}

const inMs = ({ tookMs }: Timing) => `${tookMs.toFixed(0)} ms`;

async function play(stage: Stage): Promise<void> {
  const { network, east, west, front, intruder, web, echo, greeter, cache, mesh } = stage;
  const toWeb = () => ask(front, "get", url(web.ipv4, WEB_PORT));

  await narrator.step("Two nodes, six workloads, an agent on each node", async () => {
    await mesh.start();
    return `east ${east.ipv4} runs front, intruder and cache; west ${west.ipv4} runs web, echo and greeter; \`weft up\` on both, the CA on east`;
  });

  await narrator.step("Before: the namespace is not in the mesh", async () => {
    using wire = network.witness(east, west);
    const answer = expect(await toWeb(), /^200 /);
    const packet = wire.packets().find(({ payload }) => Buffer.from(payload).includes(SECRET));
    if (packet === undefined) throw new Error("the answer was not seen on the wire, though nothing encrypts it yet");
    const text = Buffer.from(packet.payload).toString("latin1");
    const bytes = JSON.stringify(text.slice(Math.max(0, text.indexOf(SECRET) - 4)));
    return `front asks web: "${answer}" — and whoever watches the wire between the nodes reads it; the end of a packet from ${packet.source.ip} port ${packet.source.port}: ${bytes}`;
  });

  await narrator.step("Opting in: istio.io/dataplane-mode: ambient on the namespace", async () => {
    const logs = mesh.agents.map((agent) => agent.log.length);
    const since = performance.now();
    mesh.write("shop.yaml", shopYaml(stage, true));
    await Promise.all(mesh.agents.map(async (agent, i) => {
      for (const name of agent.node === east ? ["front", "intruder", "cache"] : ["web", "echo", "greeter"]) await agent.logged(new RegExp(`/shop/${name} is in the mesh`), logs[i], GIVE_UP_MS);
    }));
    const joined = { tookMs: performance.now() - since, promisedMs: CHANGE_MS_PROMISED };
    return { text: `all six are in the mesh after ${inMs(joined)}; no workload was restarted`, timings: [joined] };
  });

  await narrator.step("The same traffic, now encrypted", async () => {
    using wire = network.witness(east, west);
    const from = mesh.agent(west).log.length;
    const answer = expect(await toWeb(), new RegExp(`^200 ${SECRET} to ${front.ipv4.replaceAll(".", "\\.")}$`));
    if (wire.saw(SECRET)) throw new Error("the answer was seen in the clear on the wire");
    const records = wire.packets().filter((packet) => packet.destination.port === 15008 && packet.payload[0] === 23).length;
    if (records === 0) throw new Error("no TLS record was seen on the way to port 15008");
    const line = await mesh.agent(west).logged(/access.*direction="inbound"/, from);
    const [, source] = /src\.identity="([^"]+)"/.exec(line) ?? [];
    const [, destination] = /dst\.identity="([^"]+)"/.exec(line) ?? [];
    expect(`${source} ${destination}`, /spiffe:\/\/cluster\.local\/ns\/shop\/sa\/front spiffe:\/\/cluster\.local\/ns\/shop\/sa\/web/);
    return `"${answer}": web still sees front's own address; on the wire ${records} TLS records to port 15008 and not one byte of the text; ${source} spoke to ${destination}`;
  });

  await narrator.step("By service, over IPv6, to servers that speak first, on the same node", async () => {
    expect(await ask(front, "get", url(VIP, 80)), /^200 /);
    if (web.ipv6 !== null) expect(await ask(front, "get", url(web.ipv6, WEB_PORT)), /^200 /);
    expect(await ask(front, "read", greeter.ipv4, GREETER_PORT), /^220 greetings$/);
    expect(await ask(front, "get", url(cache.ipv4, WEB_PORT)), /^200 cached/);
    return `web by its service ${VIP}${web.ipv6 === null ? "" : ` and by ${web.ipv6}`}, the first words of greeter (a server that speaks first, as MySQL or SMTP do), and cache on front's own node all arrived`;
  });

  await narrator.step("A policy that denies, and its end", async () => {
    expect(await ask(intruder, "get", url(web.ipv4, WEB_PORT)), /^200 /);
    const from = mesh.agent(west).log.length;
    let since = performance.now();
    mesh.write("policy.yaml", DENY);
    const denied = await changeTo("intruder to be denied", async () => isError(await ask(intruder, "get", url(web.ipv4, WEB_PORT))), CHANGE_MS_PROMISED, since);
    expect(await toWeb(), /^200 /);
    // Refused at the start, or cut when the rule came while it was open.
    const line = await mesh.agent(west).logged(/close=policy_(denied|changed)/, from);
    const [, reason] = /reason="([^"]+)"/.exec(line) ?? [];
    since = performance.now();
    mesh.remove("policy.yaml");
    const allowed = await changeTo("intruder to be allowed again", async () => !isError(await ask(intruder, "get", url(web.ipv4, WEB_PORT))), CHANGE_MS_PROMISED, since);
    return {
      text: `an AuthorizationPolicy in a file: ${stringify(DENY_SPEC, { collectionStyle: "flow", flowCollectionPadding: false, lineWidth: 0 }).trim()}\n` +
        `intruder was refused ${inMs(denied)} after the file was written (${reason}), front was not; ${inMs(allowed)} after the file was gone intruder was let in again`,
      timings: [denied, allowed],
    };
  });

  const live = front.exec(program("talk", echo.ipv4, ECHO_PORT), { stderr: "inherit" });
  const beats = lines(live.stdout as ReadableStream<Uint8Array>);

  await narrator.step("A certificate rotated under a live connection", async () => {
    await until("the live connection to talk", GIVE_UP_MS, () => beats.count > 2);
    const before = await serials(stage);
    await mesh.agent(west).admin("POST", "/certificates/renew");
    const after = await until("new serials", GIVE_UP_MS, async () => {
      const now = await serials(stage);
      return now.some((serial) => before.includes(serial)) ? null : now;
    });
    const heard = beats.count;
    await until("the live connection to go on", GIVE_UP_MS, () => beats.count > heard + 2);
    expect(await toWeb(), /^200 /);
    if (beats.ended) throw new Error("the live connection was cut");
    return `${before.length} certificates on west have new serials (${before[0]?.slice(0, 8)}… is now ${after[0]?.slice(0, 8)}…); the open connection never noticed, new ones use the new ones`;
  });

  await narrator.step("An agent killed and started again, with the CA away", async () => {
    live.kill();
    // East holds the CA. West is killed while the CA is gone, and has to come back from what is on its disk.
    await mesh.agent(east).stop();
    await mesh.agent(west).kill();
    using wire = network.witness(west, east);
    const [near, far] = [await ask(greeter, "get", url(web.ipv4, WEB_PORT)), await ask(greeter, "get", url(cache.ipv4, WEB_PORT))];
    expect(near, REFUSED);
    expect(far, REFUSED);
    const leaked = wire.bytesOnPort(WEB_PORT);
    if (leaked > 0) throw new Error(`${leaked} bytes went to port ${WEB_PORT} of another node in the clear while the agent was dead`);
    const since = performance.now();
    const starting = mesh.agent(west).start();
    const back = await changeTo("traffic to flow again", async () => !isError(await ask(greeter, "get", url(web.ipv4, WEB_PORT))), RESTART_MS_PROMISED, since);
    await starting;
    await mesh.agent(east).start();
    await until("the mesh to be whole", GIVE_UP_MS, async () => !isError(await toWeb()));
    return {
      text: "east was stopped, and the CA with it; then kill -9 on west. While its agent was dead, greeter's connections to web (same node) and cache (on east) were " +
        `refused, and nothing left the node in the clear; traffic between west's workloads flows again ${inMs(back)} after the agent was started, ` +
        "from the configuration and certificates on its disk; then east came back, and front reaches web again",
      timings: [back],
    };
  });
}

/** Serials of the certificates that west holds. */
async function serials({ mesh, west }: Stage): Promise<string[]> {
  const dump = JSON.parse(await mesh.agent(west).admin("GET", "/config_dump")) as { certificates: { certChain?: { serialNumber?: string }[] }[] };
  return dump.certificates.flatMap(({ certChain }) => certChain?.[0]?.serialNumber ?? []);
}

/** Counts the lines of a stream as they come. */
function lines(stream: ReadableStream<Uint8Array>): { count: number; ended: boolean } {
  const seen = { count: 0, ended: false };
  void (async () => {
    for await (const chunk of stream) {
      const text = Buffer.from(chunk).toString();
      seen.count += text.split("\n").length - 1;
      if (text.includes("ended")) seen.ended = true;
    }
  })();
  return seen;
}

function howToPlay({ mesh, front, web, east }: Stage): string {
  const commands: readonly (readonly [string, string])[] = [
    [`nsenter --net=${front.namespacePath} curl http://${web.ipv4}:${WEB_PORT}/`, "front asks web"],
    [`nsenter --net=${east.namespacePath} curl 127.0.0.1:15000/config_dump`, "what the agent of east knows"],
    [`nsenter --net=${east.namespacePath} curl 127.0.0.1:15020/metrics`, "its metrics"],
    [`ls ${mesh.configDirectory}`, "the YAML: change it"],
    [`tail ${mesh.directory}/*.log`, "the agents' logs"],
  ];
  const width = Math.max(...commands.map(([command]) => command.length));
  return [
    "The mesh stays until you press Ctrl-C. From another terminal, as the same user: first go into the box,",
    "",
    `  ${enteringArgv(["bash"]).join(" ")}`,
    "",
    "and then, the next ones inside that shell:",
    "",
    ...commands.map(([command, what]) => `  ${command.padEnd(width)}  # ${what}`),
  ].join("\n");
}

/** Stops the agents and takes the folder away, with the CA's key in it. Never hangs: the folder goes even if an agent does not. */
async function tidyUp({ mesh, network }: Stage): Promise<void> {
  const stopped = mesh[Symbol.asyncDispose]().then(() => network[Symbol.asyncDispose]());
  await Promise.race([stopped, Bun.sleep(TIDY_MS_MAX)]);
  // A step that was interrupted may have written once more.
  rmSync(mesh.directory, { recursive: true, force: true });
}

/** Ctrl-C, or the launcher's SIGTERM. */
const ended = new Promise<"ended">((resolve) => {
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => resolve("ended"));
});

narrator.title("Weft: an ambient mesh on one machine", "Everything below happens in a sealed network namespace; nothing leaves it.");
let status = 0;
let stage: Stage | null = null;
try {
  stage = await setUp();
  const outcome = await Promise.race([play(stage), ended]);
  if (outcome === "ended") {
    status = STATUS_INTERRUPTED;
    console.log("\nInterrupted; these steps were done:\n");
  }
} catch (error) {
  status = 1;
  narrator.failed(error, stage === null ? "" : stage.mesh.agents.map((agent) => `--- ${agent.node.name}\n${agent.log.split("\n").slice(-15).join("\n")}`).join("\n"));
}
narrator.summary();
if (stay && status === 0 && stage !== null) {
  console.log(`\n${howToPlay(stage)}`);
  await ended;
}
if (stage !== null) await tidyUp(stage);
process.exit(status);
