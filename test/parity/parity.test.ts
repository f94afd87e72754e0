// The same requests through a waypoint and through Envoy with equivalent configuration: the answers, and what the servers were sent, are
// the same, or the corpus says why not, and both are as recorded. Where ENVOY_BIN names no Envoy the waypoint is held to Envoy's answers of
// envoy-answers.json, which a run with one writes anew when PARITY_RECORD=1.

import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { must, NamespaceLinks } from "../../src/net/links.ts";
import { unsealed } from "../kit/box.ts";
import { until } from "../kit/until.ts";
import { ip } from "../kit/mesh-records.ts";
import { describeUnless, needsBinary, testUnless } from "../kit/skip.ts";
import { CORPUS } from "./corpus.ts";
import type { Case, Exchange, Http2Request } from "./description.ts";
import { reasonOf, unknownKeys } from "./differences.ts";
import { differencesPage } from "./differences-page.ts";
import { envoyConfig } from "./envoy-config.ts";
import { caseDocuments, commonDocuments, GATEWAY, servedAs } from "./mesh-yaml.ts";
import { observe, type Observation } from "./observation.ts";
import { converse2 } from "./http2-client.ts";
import { type Answer, converse } from "./raw-client.ts";
import { Servers, SERVERS } from "./servers.ts";
import { makeTokens, type Tokens, withoutTokens, withTokens } from "./tokens.ts";

setDefaultTimeout(60_000);

const ROOT = join(import.meta.dir, "../..");
const RECORDED = join(import.meta.dir, "envoy-answers.json");
const PAGE = join(ROOT, "docs/parity.md");
const WAYPOINT_PORT = 20_000;
const ENVOY_PORT = 25_000;
/** By `case / exchange`. Of exchanges that differ, ours too. */
type Recorded = Record<string, { envoy: Observation; waypoint?: Observation }>;

const noEnvoy = needsBinary("ENVOY_BIN");
const recording = noEnvoy === null && process.env["PARITY_RECORD"] === "1";
const recorded: Recorded = recording ? {} : (JSON.parse(readFileSync(RECORDED, "utf8")) as Recorded);
const keyOf = (one: Case, { name }: Exchange): string => `${one.name} / ${name}`;
const serviceOf = (index: number): string => `case-${index}`;

test("parity: every exchange has a name of its own, and differences name exchanges", () => {
  const keys = CORPUS.flatMap((one) => one.exchanges.map((exchange) => keyOf(one, exchange)));
  expect(keys.filter((key, i) => keys.indexOf(key) !== i)).toEqual([]);
  expect(unknownKeys(new Set(keys))).toEqual([]);
});

describeUnless(unsealed)("parity", () => {
  const directory = mkdtempSync(join(tmpdir(), "weft-parity-"));
  const servers = new Servers();
  let tokens: Tokens;
  let waypoint: Bun.Subprocess;
  let envoy: Bun.Subprocess | null = null;

  beforeAll(async () => {
    using links = must(NamespaceLinks.open(null));
    for (const { address } of Object.values(SERVERS)) must(links.addAddress(must(links.loopback()), ip(address), 32));
    await servers.start();
    tokens = await makeTokens(Math.floor(Date.now() / 1000));
    waypoint = startWaypoint(directory, tokens);
    if (noEnvoy === null) envoy = startEnvoy(directory, tokens);
    await until("the waypoint to be ready", 20_000, () => fetch("http://127.0.0.1:15021/healthz/ready").then(({ ok }) => ok, () => false)).catch((error: unknown) => {
      throw new Error(`${String(error)}\n${readFileSync(join(directory, "waypoint.log"), "utf8").slice(-4000)}`);
    });
    if (envoy !== null) {
      await until("Envoy to be ready", 20_000, async () => (await converse(ENVOY_PORT, "GET /ready HTTP/1.1\r\nhost: web.example\r\nconnection: close\r\n\r\n", 1, false))[0]!.status > 0).catch((error: unknown) => {
        throw new Error(`${String(error)}\n${readFileSync(join(directory, "envoy.log"), "utf8").slice(-4000)}`);
      });
    }
  });

  afterAll(async () => {
    for (const started of [waypoint, envoy]) started?.kill("SIGKILL");
    await Promise.all([waypoint.exited, envoy?.exited]);
    await servers[Symbol.asyncDispose]();
    rmSync(directory, { recursive: true, force: true });
    if (recording) writeFileSync(RECORDED, `${JSON.stringify(recorded, null, 1)}\n`);
  });

  const overHttp2 = async (port: number, exchange: Exchange, request: Http2Request): Promise<Observation> => {
    servers.arrivals.length = 0;
    const headers = Object.fromEntries(Object.entries(request.headers).map(([name, value]) => [name, withTokens(name === "x-id" ? `h2-${value}` : value, tokens)]));
    const answer = await converse2(port, { ...request, target: withTokens(request.target, tokens), headers });
    return await observed([answer], exchange);
  };

  const observed = async (answers: readonly Answer[], exchange: Exchange): Promise<Observation> => {
    const wanted = exchange.arrivals ?? (answers.some(({ headers }) => headers.some(([name]) => name === "x-server")) ? 1 : 0);
    // Fewer are part of what was seen, and fail the comparison.
    await until(`${wanted} requests to have arrived`, 3_000, () => servers.arrivals.length >= wanted || null).catch(() => {});
    return JSON.parse(withoutTokens(JSON.stringify(observe(answers, servers.arrivals)), tokens)) as Observation;
  };

  const through = async (port: number, exchange: Exchange, side: string): Promise<Observation> => {
    servers.arrivals.length = 0;
    const send = withTokens(exchange.send, tokens).replace(/^x-id: /im, `x-id: ${side}-`);
    return await observed(await converse(port, send, exchange.answers ?? 1, exchange.send.startsWith("HEAD ")), exchange);
  };

  CORPUS.forEach((one, index) => {
    describe(one.name, () => {
      for (const exchange of one.exchanges) {
        const key = keyOf(one, exchange);
        test(exchange.name.length > 100 ? `${exchange.name.slice(0, 100)}…` : exchange.name, async () => {
          const ours = await through(WAYPOINT_PORT + index, exchange, "w");
          if (exchange.http2 !== undefined) expect(await overHttp2(WAYPOINT_PORT + index, exchange, exchange.http2)).toEqual(ours);
          if (envoy !== null) {
            const theirs = await through(ENVOY_PORT + index, exchange, "e");
            if (recording) recorded[key] = { envoy: theirs, ...(reasonOf(key) === null ? {} : { waypoint: ours }) };
            else expect(theirs).toEqual(recorded[key]!.envoy);
          }
          const { envoy: theirs, waypoint: expected } = recorded[key] ?? {};
          if (reasonOf(key) === null) return expect(ours).toEqual(theirs!);
          expect(ours).not.toEqual(theirs!);
          expect(ours).toEqual(expected!);
        });
      }
    });
  });
});

testUnless(recording ? "the answers are being recorded" : null)("parity: docs/parity.md lists every difference", () => {
  const page = differencesPage(CORPUS, (key) => recorded[key]);
  if (process.env["PARITY_PAGE"] === "1") writeFileSync(PAGE, page);
  expect(readFileSync(PAGE, "utf8")).toBe(page);
});

function startWaypoint(directory: string, { jwks }: Tokens): Bun.Subprocess {
  const config = join(directory, "config");
  mkdirSync(config);
  const documents = [...commonDocuments(), ...CORPUS.flatMap(({ service }, i) => caseDocuments(serviceOf(i), service, jwks))];
  writeFileSync(join(config, "parity.yaml"), documents.map((document) => JSON.stringify(document)).join("\n---\n"));
  const serve = CORPUS.map((_, i) => `127.0.0.1:${WAYPOINT_PORT + i}=${servedAs(serviceOf(i))}`).join(",");
  return Bun.spawn(
    [process.execPath, join(ROOT, "src/main.ts"), "waypoint", "--config", config, "--state", join(directory, "state"), "--gateway", GATEWAY, "--workers", "1", "--serve", serve],
    { stdout: "ignore", stderr: Bun.file(join(directory, "waypoint.log")) },
  );
}

function startEnvoy(directory: string, { jwks }: Tokens): Bun.Subprocess {
  const file = join(directory, "envoy.json");
  writeFileSync(file, JSON.stringify(envoyConfig(CORPUS.map(({ service: spec }, i) => ({ name: serviceOf(i), port: ENVOY_PORT + i, spec })), jwks)));
  return Bun.spawn([process.env["ENVOY_BIN"]!, "-c", file, "--concurrency", "1", "--use-dynamic-base-id", "--disable-hot-restart", "-l", "warning"], { stdout: "ignore", stderr: Bun.file(join(directory, "envoy.log")) });
}
