// docs/recipes.md and docs/quickstart-waypoint.md as a stranger would use them: the YAML of the page in a directory, `weft up`, and curl from
// a workload. Each block of the page is used, and its commands are those that are run.

import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { binomialBounds } from "../kit/binomial.ts";
import { keySet, sign, testKey } from "../kit/issuer.ts";
import { Mesh } from "../kit/mesh.ts";
import { MeshNetwork, type Node, type Workload } from "../kit/network.ts";
import { until } from "../kit/until.ts";

setDefaultTimeout(60_000);

const ROOT = join(import.meta.dir, "../..");
const page = (name: string): string => readFileSync(join(ROOT, "docs", name), "utf8");
const recipes = page("recipes.md");
const quickstart = page("quickstart-waypoint.md");
const yamlOf = (text: string): string[] => [...text.matchAll(/```yaml\n([\s\S]*?)```/g)].map((match) => match[1]!);
const sections = new Map(recipes.split(/^## /m).slice(1).map((text) => [text.slice(0, text.indexOf("\n")), text]));
const used = new Set<string>();

/** A block of a section, as it is written. */
function recipe(title: string, index = 0): string {
  const block = yamlOf(sections.get(title) ?? "")[index];
  if (block === undefined) throw new Error(`docs/recipes.md has no block ${index} below ${title}`);
  used.add(`${title} ${index}`);
  return block;
}

/** Says its version and what it was asked, with the status that `?v1=` or `?v2=` names, after `?ms=` or, one of them alone, `?v1ms=`; `/seen` tells everything it was asked. */
const server = (version: string): string => `
const seen = [];
Bun.serve({ port: 8080, hostname: "0.0.0.0", async fetch(request) {
  const { pathname, search, searchParams } = new URL(request.url);
  if (pathname === "/seen") return Response.json(seen);
  const said = ["${version}", request.method, pathname + search, await request.text()].join(" ").trimEnd();
  seen.push(said);
  const ms = Number(searchParams.get("ms") ?? searchParams.get("${version}ms") ?? 0);
  if (ms > 0) await Bun.sleep(ms);
  const status = searchParams.get("${version}");
  return new Response(said + "\\n", { status: Number(status ?? 200) });
} });`;

/** Answers every call with nothing but its version. */
const grpcServer = (version: string): string => `
require("node:http2").createServer().on("stream", (stream) => {
  stream.on("error", () => {}).resume();
  stream.respond({ ":status": 200, "content-type": "application/grpc", "x-version": "${version}" }, { waitForTrailers: true });
  stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
  stream.end();
}).listen(9090, "0.0.0.0");`;

let network: MeshNetwork;
let mesh: Mesh;
let node: Node;
let v1: Workload;
let v2: Workload;
let client: Workload;

beforeAll(async () => {
  network = MeshNetwork.create();
  node = network.node("a");
  // The addresses that the quickstart gives them.
  [v1, v2, client] = [node.workload("web-1", { ipv4: "198.18.1.10" }), node.workload("web-2", { ipv4: "198.18.1.11" }), node.workload("client-1", { ipv4: "198.18.1.12" })];
  node.workload("waypoint-1", { ipv4: "198.18.1.20" });
  for (const [place, version] of [[v1, "v1"], [v2, "v2"]] as const) {
    place.exec([process.execPath, "-e", server(version)], { stdout: "ignore", stderr: "inherit" });
    await place.listening(8080);
  }
  mesh = Mesh.create({ nodes: [node], flags: ["--service-cidrs", "198.18.255.0/24"] });
  mesh.write("place.yaml", recipe("The place"));
  mesh.write("workloads.yaml", yamlOf(quickstart)[1]!);
  await mesh.start();
  await until(() => `both versions to answer; the log:\n${mesh.agent(node).log.slice(-3000)}`, 20_000, async () => {
    const versions = await versionsOf(8);
    return versions.has("v1") && versions.has("v2");
  });
}, 90_000);

afterAll(async () => {
  await mesh?.[Symbol.asyncDispose]();
  await network?.[Symbol.asyncDispose]();
});

/** Runs a command of the page in the client's place. @returns what curl printed, then a line of status and reason. */
async function run(command: string): Promise<string> {
  const shell = command.replace(/^curl /, `curl -sS --max-time 5 -w '\\n%{http_code} %header{x-weft-reason}' `);
  return (await client.run(["sh", "-c", shell], { env: { WEB: WEB_URL } })).stdout.trim().replace(/\n+(?=[^\n]*$)/, "\n");
}

const WEB_URL = "http://web.shop.svc.cluster.local";
/** The same; the command must stand on the page. */
async function said(command: string): Promise<string> {
  expect(recipes).toContain(`\`${command}\``);
  return await run(command);
}

/** How long the answer to a slow copy takes. */
const COPY_MS = 3000;
/** Enough for a tenth to be told from a fifth. */
const CANARY_REQUESTS = 500;

/** Of as many requests, by one program, one after the other. */
async function versionsOfMany(count: number): Promise<string[]> {
  const { stdout } = await client.run(["curl", "-sS", "--fail-with-body", "--max-time", "5", `${WEB_URL}/?[1-${count}]`]);
  return stdout.split("\n").filter((line) => line !== "").map(versionIn);
}

/** One connection, over which it asks again and again: says each version that is another than the last, and `closed` should the connection end. */
const ONE_CONNECTION = `
const socket = require("node:net").connect(80, "web.shop.svc.cluster.local");
let last = "";
let received = "";
const ask = () => socket.write("GET /open HTTP/1.1\\r\\nhost: web\\r\\n\\r\\n");
socket.on("connect", ask).on("error", () => {}).on("close", () => console.log("closed")).on("data", (bytes) => {
  received += bytes;
  const version = /(v[12]) GET \\/open\\n/.exec(received)?.[1];
  if (version === undefined) return;
  received = "";
  if (version !== last) console.log((last = version));
  setTimeout(ask, 10);
});`;

const versionIn = (answer: string): string => answer.slice(0, 2);
async function versionsOf(count: number, flags = ""): Promise<Set<string>> {
  return new Set(await Promise.all(Array.from({ length: count }, async () => versionIn(await run(`curl ${flags} $WEB`)))));
}

async function seen(place: Workload): Promise<string[]> {
  return JSON.parse((await place.run(["curl", "-sS", "http://127.0.0.1:8080/seen"])).stdout) as string[];
}

/** Puts a file beside those of the place, and takes it away again. @param inForce what tells that it is. */
async function withRecipe(yaml: string, inForce: () => Promise<boolean>, body: () => Promise<void>): Promise<void> {
  const from = mesh.agent(node).log.length;
  mesh.write("recipe.yaml", yaml);
  try {
    await until(() => `the recipe to be in force; the log:\n${mesh.agent(node).log.slice(from).slice(-3000)}`, 10_000, inForce);
    await body();
    // Nothing to remark: not even a warning.
    expect(mesh.agent(node).log.slice(from)).not.toMatch(/\t(warn|error)\tconfig/);
  } finally {
    mesh.remove("recipe.yaml");
    // A server that was slow or failed is asked less, until that fades.
    await until("the recipe to be gone", 30_000, async () => {
      const versions = await versionsOf(6);
      return versions.has("v1") && versions.has("v2");
    });
  }
}

const always = async (flags: string, version: string): Promise<boolean> => {
  const versions = await versionsOf(6, flags);
  return versions.size === 1 && versions.has(version);
};

describe("docs/recipes.md", () => {
  test("Canary: a tenth, as chance has it", async () => {
    const [min, max] = binomialBounds(CANARY_REQUESTS, 0.1);
    // Half of them are the second version's without the rule, and none would be of a rule that sends all to the first.
    expect(binomialBounds(CANARY_REQUESTS, 0.5)[0]).toBeGreaterThan(max);
    expect(min).toBeGreaterThan(0);
    await withRecipe(recipe("Canary"), async () => (await versionsOfMany(100)).filter((version) => version === "v2").length < binomialBounds(100, 0.5)[0], async () => {
      const versions = await versionsOfMany(CANARY_REQUESTS);
      expect(versions).toHaveLength(CANARY_REQUESTS);
      const second = versions.filter((version) => version === "v2").length;
      expect(second).toBeGreaterThanOrEqual(min);
      expect(second).toBeLessThanOrEqual(max);
      expect(versions.filter((version) => version === "v1")).toHaveLength(CANARY_REQUESTS - second);
    });
  });

  test("Canary: a session keeps its version", async () => {
    await withRecipe(recipe("Canary", 1), async () => (await run("curl -i $WEB")).includes("set-cookie: web-session="), async () => {
      for (let user = 0; user < 4; user++) {
        const first = await run("curl -i $WEB");
        const cookie = /set-cookie: ([^;]+)/i.exec(first)![1]!;
        const version = /^(v[12]) GET/m.exec(first)![1]!;
        expect(await versionsOf(6, `-H "cookie: ${cookie}"`)).toEqual(new Set([version]));
      }
    });
  });

  test("A/B test by header or cookie", async () => {
    await withRecipe(recipe("A/B test by header or cookie"), () => always("", "v1"), async () => {
      for (const [command, version] of [["curl $WEB", "v1"], ['curl -H "x-group: b" $WEB', "v2"], ['curl -H "cookie: lang=en; group=b" $WEB', "v2"], ['curl -H "cookie: group=bc" $WEB', "v1"]] as const) {
        expect([command, versionIn(await said(command))]).toEqual([command, version]);
      }
      for (const [cookie, version] of [["group=b", "v2"], ["group=b; lang=en", "v2"], ["xgroup=b", "v1"], ["a=group=b", "v1"]] as const) expect([cookie, versionIn(await run(`curl -H "cookie: ${cookie}" $WEB`))]).toEqual([cookie, version]);
    });
  });

  test("A/B test of calls", async () => {
    for (const [place, version] of [[v1, "v1"], [v2, "v2"]] as const) {
      place.exec([process.execPath, "-e", grpcServer(version)], { stdout: "ignore", stderr: "inherit" });
      await place.listening(9090);
    }
    const called = async (method: string, group: string): Promise<string> => {
      const { stdout } = await client.run(["curl", "-sS", "-i", "--max-time", "5", "--http2-prior-knowledge", "-H", "content-type: application/grpc", "-H", "te: trailers", "-H", `x-group: ${group}`, "-d", "", `http://cart.shop.svc.cluster.local:9090${method}`]);
      return /^x-version: (\S+)/im.exec(stdout)?.[1] ?? stdout;
    };
    await withRecipe(recipe("A/B test by header or cookie", 1), async () => (await called("/shop.Cart/Add", "b")) === "v2", async () => {
      expect([await called("/shop.Cart/Add", "a"), await called("/shop.Cart/Add", "b"), await called("/shop.Cart/Remove", "b"), await called("/shop.Cart/Added", "b")]).toEqual(["v1", "v2", "v1", "v1"]);
    });
  });

  test("Blue-green: switched by exchanging the weights, on a connection that is open too", async () => {
    const blue = recipe("Blue-green");
    const green = blue.replace("weight: 1 ", "weight: x ").replace("weight: 0 ", "weight: 1 ").replace("weight: x ", "weight: 0 ");
    expect(green).not.toBe(blue);
    await withRecipe(blue, () => always("", "v1"), async () => {
      expect(await always('-H "x-preview: yes"', "v2")).toBe(true);
      const open = client.exec([process.execPath, "-e", ONE_CONNECTION], { stderr: "inherit" });
      let said = "";
      const ended = (async () => {
        for await (const chunk of open.stdout as ReadableStream<Uint8Array>) said += Buffer.from(chunk).toString();
      })();
      await until("the open connection to be answered by the first version", 10_000, async () => said === "v1\n");
      mesh.write("recipe.yaml", green);
      await until("the other version", 10_000, () => always("", "v2"));
      await until(() => `the other version on the open connection; it said ${JSON.stringify(said)}`, 10_000, async () => said === "v1\nv2\n");
      mesh.write("recipe.yaml", blue);
      await until("the first version again", 10_000, () => always("", "v1"));
      await until(() => `the first version again on the open connection; it said ${JSON.stringify(said)}`, 10_000, async () => said === "v1\nv2\nv1\n");
      open.kill();
      await ended;
    });
  });

  test("Mirror: a copy, body and all", async () => {
    await withRecipe(recipe("Mirror"), () => always("", "v1"), async () => {
      expect(await run("curl -d kept $WEB/mirrored?a=b")).toBe("v1 POST /mirrored?a=b kept\n200");
      await until("the copy", 5_000, async () => (await seen(v2)).includes("v2 POST /mirrored?a=b kept"));
      expect((await seen(v1)).filter((one) => one.includes("/mirrored"))).toHaveLength(1);
    });
  });

  test("Mirror: how the copy is answered, and when, is nobody's business", async () => {
    await withRecipe(recipe("Mirror"), () => always("", "v1"), async () => {
      for (const [path, wish] of [["/slow-copy", `v2ms=${COPY_MS}`], ["/failed-copy", "v2=503"]] as const) {
        const startMs = performance.now();
        expect(await run(`curl -d kept "$WEB${path}?${wish}"`)).toBe(`v1 POST ${path}?${wish} kept\n200`);
        expect(performance.now() - startMs).toBeLessThan(COPY_MS);
        await until(`the copy of ${path}`, 5_000, async () => (await seen(v2)).includes(`v2 POST ${path}?${wish} kept`));
        // Nor is it tried again.
        expect((await seen(v2)).filter((one) => one.includes(path))).toHaveLength(1);
      }
      expect(await versionsOf(6)).toEqual(new Set(["v1"]));
    });
  });

  test("Timeouts and retries: three attempts of a read, one of a write", async () => {
    const attempts = async (path: string): Promise<number> => [...await seen(v1), ...await seen(v2)].filter((one) => one.includes(path)).length;
    let asked = 0;
    await withRecipe(recipe("Timeouts and retries"), async () => {
      const path = `/get-${++asked}?v1=502&v2=502`;
      expect(await run(`curl "$WEB${path}"`)).toEndWith("502");
      return (await attempts(path)) === 3;
    }, async () => {
      expect(await run('curl -d x "$WEB/post?v1=502&v2=502"')).toEndWith("502");
      expect(await attempts("/post?")).toBe(1);
      expect(await run('curl "$WEB/slow?ms=5000"')).toMatch(/504 (per_try|request)_timeout$/);
      expect(await run('curl -d x "$WEB/slow?ms=5000"')).toEndWith("504 request_timeout");
    });
  });

  test("Faults on purpose", async () => {
    await withRecipe(recipe("Faults on purpose"), async () => (await said('curl -H "x-fault: broken" $WEB')).endsWith("503 fault_abort"), async () => {
      expect(await said("curl $WEB")).toMatch(/^v[12] GET \/\n200$/);
      const startMs = performance.now();
      expect(await said('curl -H "x-fault: slow" $WEB')).toMatch(/^v[12] GET \/\n200$/);
      expect(performance.now() - startMs).toBeGreaterThanOrEqual(300);
    });
  });

  test("A limit for each caller", async () => {
    await withRecipe(recipe("A limit for each caller"), async () => (await run("curl -i $WEB")).includes("429 rate_limited"), async () => {
      const refused = await run("curl -i $WEB");
      expect(refused).toMatch(/^retry-after: [0-9]+\r$/im);
    });
  });

  test("Who may call", async () => {
    await withRecipe(recipe("Who may call"), async () => (await said("curl -X DELETE $WEB")).endsWith("403 access_not_allowed"), async () => {
      expect(await said("curl $WEB")).toMatch(/^v[12] GET \/\n200$/);
      expect(await said("curl http://198.18.1.10:8080")).toStartWith("000");
    });
  });

  test("Roles", async () => {
    const key = await testKey("quickstart");
    const nowS = Math.floor(Date.now() / 1000);
    const yaml = recipe("Roles");
    // The page's keys are somebody else's; what they are is theirs to say.
    const ours = yaml.replace(/^( *)\{"keys":.*$/m, (_, indent: string) => indent + keySet(key));
    expect(ours).not.toBe(yaml);
    const token = (roles: unknown) => sign(key, { iss: "https://issuer.example", aud: "shop", iat: nowS, exp: nowS + 3600, roles });
    const [reader, admin, cook] = [await token(["reader"]), await token(["admin", "staff"]), await token("cook")];
    const withToken = async (of: string, method = "GET") => (await run(`curl -X ${method} -H "authorization: Bearer ${of}" $WEB`)).split("\n").at(-1);
    await withRecipe(ours, async () => (await said("curl $WEB")).endsWith("403 access_not_allowed"), async () => {
      expect([await withToken(reader), await withToken(reader, "DELETE"), await withToken(admin), await withToken(admin, "DELETE"), await withToken(cook)]).toEqual(["200", "403 access_not_allowed", "200", "200", "403 access_not_allowed"]);
      mesh.write("recipe.yaml", yaml);
      await until("the page's own keys", 10_000, async () => (await withToken(reader)) === "401 token_signature");
    });
  });

  test("Old addresses", async () => {
    await withRecipe(recipe("Old addresses"), () => always("", "v1"), async () => {
      expect(await said("curl $WEB/shop/cart?id=1")).toBe("v1 GET /cart?id=1\n200");
      expect(await run("curl $WEB/shop")).toBe("v1 GET /\n200");
      const moved = await said("curl -i $WEB/docs/start");
      expect(moved).toContain("location: https://docs.example/docs/start");
      expect(moved).toEndWith("301 redirect");
    });
  });

  test("Pages of another site", async () => {
    await withRecipe(recipe("Pages of another site"), () => always("", "v1"), async () => {
      const command = 'curl -i -X OPTIONS -H "Origin: https://app.example" -H "Access-Control-Request-Method: PUT" $WEB';
      expect(await said(command)).toMatch(/access-control-allow-origin: https:\/\/app\.example\r\n[\s\S]*204 cors_preflight$/);
      const other = await run(command.replace("app.example", "evil.example"));
      expect(other).toEndWith("204 cors_preflight_denied");
      expect(other).not.toContain("access-control-allow-origin");
    });
  });

  test("Closed for repairs", async () => {
    await withRecipe(recipe("Closed for repairs"), async () => (await run("curl $WEB")).endsWith("503 direct_response"), async () => {
      const answer = await run("curl -i $WEB");
      expect(answer).toContain("Back in ten minutes.");
      expect(answer).toMatch(/^retry-after: 600\r$/im);
    });
  });

  // The last: an ejection outlives the policy that asked for it.
  test("A server that fails is left out", async () => {
    mesh.write("recipe.yaml", recipe("A server that fails is left out"));
    // The balancer avoids a server that fails anyway; left out it is when it has been ejected.
    await until("the first version to be left out", 10_000, async () => {
      await Promise.all(Array.from({ length: 8 }, () => run("curl $WEB/?v1=500")));
      return (await mesh.agent(node).metric("weft_upstream_ejections_total", { destination_service_name: "web" })) > 0;
    });
    expect(await versionsOf(10)).toEqual(new Set(["v2"]));
    mesh.remove("recipe.yaml");
  });

  test("every block of the page is tried here", () => {
    const all = [...sections].flatMap(([title, text]) => yamlOf(text).map((_, i) => `${title} ${i}`));
    expect(all.filter((one) => !used.has(one))).toEqual([]);
  });
});

test("docs/quickstart-waypoint.md: what is seen is what the page says", async () => {
  const [rules, , closed] = yamlOf(quickstart);
  const key = await testKey("quickstart");
  const nowS = Math.floor(Date.now() / 1000);
  const token = await sign(key, { iss: "https://issuer.example", aud: "shop", sub: "ann", iat: nowS, exp: nowS + 3600 });
  mesh.remove("place.yaml");
  mesh.write("web.yaml", rules!.replace(/^( *)\{"keys":.*$/m, (_, indent: string) => indent + keySet(key)));
  const bearer = `-H "Authorization: Bearer ${token}"`;
  await until("the token to be asked for", 10_000, async () => (await run("curl $WEB")).endsWith("403 access_not_allowed"));
  expect(await run(`curl ${bearer} $WEB`)).toMatch(/^v[12] GET \/\n200$/);
  // By few programs, each over one connection: by one for each request they would not be quicker than the limit on every machine.
  const answers = await Promise.all(Array.from({ length: 10 }, async () => (await client.run(["sh", "-c", `curl -sS -o /dev/null -w '%{http_code} ' ${bearer} "$WEB/?[1-30]"`], { env: { WEB: WEB_URL } })).stdout));
  const statuses = answers.join("").trim().split(" ");
  expect(statuses.filter((status) => status === "200").length).toBeGreaterThanOrEqual(99);
  expect(statuses).toContain("429");
  mesh.write("closed.yaml", closed!);
  await until("the servers to be closed to all but the waypoint", 10_000, async () => (await run("curl http://198.18.1.10:8080")).startsWith("000"));
});
