// The same requests through a waypoint and through Envoy with equivalent configuration: the answers, and what the servers were sent, are
// the same, or the corpus says why not, and both are as recorded. Where ENVOY_BIN names no Envoy the waypoint is held to Envoy's answers of
// envoy-answers.json, which a run with one writes anew when PARITY_RECORD=1.

import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { must, NamespaceLinks } from "../../src/net/links.ts";
import { unsealed } from "../kit/box.ts";
import { until } from "../kit/until.ts";
import { ip } from "../kit/mesh-records.ts";
import { describeUnless, needsBinary, testUnless } from "../kit/skip.ts";
import { AUTHORIZER, Authorizer } from "./authorizer.ts";
import { CORPUS } from "./corpus.ts";
import type { Case, Exchange, Http2Request, Normalization } from "./description.ts";
import { DIFFERENCES, reasonOf, unknownKeys } from "./differences.ts";
import { differencesPage } from "./differences-page.ts";
import { readRecordedEndpoints } from "./endpoints/recorded.ts";
import { envoyConfig } from "./envoy-config.ts";
import { caseDocuments, commonDocuments, GATEWAY, meshDocument, servedAs } from "./mesh-yaml.ts";
import { observe, type Observation } from "./observation.ts";
import { converse2 } from "./http2-client.ts";
import { type Answer, converse } from "./raw-client.ts";
import { converse2Raw } from "./raw-http2-client.ts";
import { Servers, SERVERS } from "./servers.ts";
import { makeTokens, type Tokens, withoutTokens, withTokens } from "./tokens.ts";

setDefaultTimeout(60_000);

const ROOT = join(import.meta.dir, "../..");
const RECORDED = join(import.meta.dir, "envoy-answers.json");
const PAGE = join(ROOT, "docs/parity.md");
const WAYPOINT_PORT = 20_000;
const ENVOY_PORT = 25_000;
const READINESS_PORT = 15_300;
/** Several processes that start at once, on a machine that may be busy. */
const READY_MS = 60_000;
/** By `case / exchange`; of Envoy's answers over HTTP/2 that are not those over HTTP/1.1 by that and OVER_HTTP2. Of exchanges that differ, ours too. */
type Recorded = Record<string, { envoy: Observation; waypoint?: Observation }>;

const noEnvoy = needsBinary("ENVOY_BIN");
const recording = noEnvoy === null && process.env["PARITY_RECORD"] === "1";
const recorded: Recorded = recording ? {} : (JSON.parse(readFileSync(RECORDED, "utf8")) as Recorded);
const keyOf = (one: Case, { name }: Exchange): string => `${one.name} / ${name}`;
const OVER_HTTP2 = ", over HTTP/2";
const serviceOf = (index: number): string => `case-${index}`;

test("parity: every exchange has a name of its own, and differences name exchanges", () => {
  const keys = CORPUS.flatMap((one) => one.exchanges.map((exchange) => keyOf(one, exchange)));
  expect(keys.filter((key, i) => keys.indexOf(key) !== i)).toEqual([]);
  const known = new Set(CORPUS.flatMap((one) => one.exchanges.flatMap((exchange) => [keyOf(one, exchange), ...(hasBoth(exchange) ? [keyOf(one, exchange) + OVER_HTTP2] : [])])));
  expect(unknownKeys(known)).toEqual([]);
  // What is recorded of an exchange that is gone would be held for checked.
  expect(Object.keys(recorded).filter((key) => !known.has(key))).toEqual([]);
  if (recording) return;
  expect(keys.filter((key) => recorded[key] === undefined)).toEqual([]);
  expect(DIFFERENCES.flatMap(({ exchanges }) => exchanges).filter((key) => recorded[key]?.waypoint === undefined)).toEqual([]);
});

const hasBoth = ({ send, http2 }: Exchange): boolean => send !== null && http2 !== undefined;

describeUnless(unsealed)("parity", () => {
  const directory = mkdtempSync(join(tmpdir(), "weft-parity-"));
  const servers = new Servers();
  let tokens: Tokens;
  const authorizer = new Authorizer((arrival) => void servers.arrivals.push(arrival));
  let waypoints: Bun.Subprocess[] = [];
  let envoy: Bun.Subprocess | null = null;

  beforeAll(async () => {
    using links = must(NamespaceLinks.open(null));
    for (const { address } of [...Object.values(SERVERS), AUTHORIZER]) must(links.addAddress(must(links.loopback()), ip(address), 32));
    await Promise.all([servers.start(), authorizer.start()]);
    tokens = await makeTokens(Math.floor(Date.now() / 1000));
    const config = writeConfig(directory, tokens);
    const kinds = [...new Set(CORPUS.map(({ service }) => service.normalization ?? "BASE"))];
    const logs = kinds.map((kind) => join(directory, `waypoint-${kind}.log`));
    waypoints = kinds.map((kind, i) => startWaypoint({ config, state: join(directory, kind), log: logs[i]!, normalization: kind, place: i }));
    if (noEnvoy === null) envoy = startEnvoy(directory, tokens);
    await Promise.all(logs.map(async (log, i) => {
      await until("a waypoint to be ready", READY_MS, () => fetch(`http://127.0.0.1:${READINESS_PORT + i}/healthz/ready`).then(({ ok }) => ok, () => false)).catch((error: unknown) => {
        throw new Error(`${String(error)}\n${readFileSync(log, "utf8").slice(-4000)}`);
      });
    }));
    if (envoy !== null) {
      await until("Envoy to be ready", READY_MS, async () => (await converse(ENVOY_PORT, "GET /ready HTTP/1.1\r\nhost: web.example\r\nconnection: close\r\n\r\n"))[0]!.status > 0).catch((error: unknown) => {
        throw new Error(`${String(error)}\n${readFileSync(join(directory, "envoy.log"), "utf8").slice(-4000)}`);
      });
    }
  }, 2 * READY_MS);

  afterAll(async () => {
    for (const started of [...waypoints, envoy]) started?.kill("SIGKILL");
    await Promise.all([...waypoints, envoy].map((started) => started?.exited));
    await authorizer[Symbol.asyncDispose]();
    await servers[Symbol.asyncDispose]();
    rmSync(directory, { recursive: true, force: true });
    if (recording) writeFileSync(RECORDED, `${JSON.stringify(recorded, null, 1)}\n`);
  });

  const overHttp2 = async (port: number, exchange: Exchange, request: Http2Request, side: string): Promise<Observation> => {
    servers.arrivals.length = 0;
    const headers = Object.fromEntries(Object.entries(request.headers).map(([name, value]) => [name, withTokens(name === "x-id" ? `${side}-h2-${value}` : value, tokens)]));
    const answer = await converse2(port, { ...request, target: withTokens(request.target, tokens), headers }, exchange.talk);
    return await observed([answer], exchange);
  };

  const observed = async (answers: readonly Answer[], exchange: Exchange): Promise<Observation> => {
    const wanted = exchange.arrivals ?? (answers.some(({ headers }) => headers.some(([name]) => name === "x-server")) ? 1 : 0);
    // Fewer are part of what was seen, and fail the comparison.
    await until(`${wanted} requests to have arrived`, 3_000, () => servers.arrivals.length >= wanted || null).catch(() => {});
    return JSON.parse(withoutTokens(JSON.stringify(observe(answers, servers.arrivals)), tokens)) as Observation;
  };

  const overHttp1 = async (port: number, exchange: Exchange, bytes: string, side: string): Promise<Observation> => {
    servers.arrivals.length = 0;
    const { answers: count = 1, talk, meanwhile } = exchange;
    const other = meanwhile === undefined ? null : converse(port, meanwhile);
    if (other !== null) await until("the other request to have arrived", 3_000, () => servers.arrivals.length > 0 || null);
    const answers = await converse(port, withTokens(bytes, tokens).replace(/^x-id: /im, `x-id: ${side}-`), { count, headless: bytes.startsWith("HEAD "), ...(talk === undefined ? {} : { talk }) });
    return await observed([...answers, ...((await other) ?? [])], exchange);
  };

  const through = async (port: number, exchange: Exchange, side: string): Promise<Observation> => {
    if (exchange.rawHttp2 !== undefined) {
      servers.arrivals.length = 0;
      return await observed([await converse2Raw(port, exchange.rawHttp2)], exchange);
    }
    return exchange.send === null ? await overHttp2(port, exchange, exchange.http2!, side) : await overHttp1(port, exchange, exchange.send, side);
  };

  /** Envoy's answer by this key: as it is recorded, and recorded. */
  const envoyAnswers = (key: string, theirs: Observation, ours: Observation): void => {
    if (recording) recorded[key] = { envoy: theirs, ...(reasonOf(key) === null ? {} : { waypoint: ours }) };
    else expect(theirs).toEqual(recorded[key]!.envoy);
  };

  const compare = (key: string, ours: Observation): void => {
    const { envoy: theirs, waypoint: expected } = recorded[key] ?? {};
    if (reasonOf(key) === null) return expect(ours).toEqual(theirs!);
    expect(ours).not.toEqual(theirs!);
    expect(ours).toEqual(expected!);
  };

  CORPUS.forEach((one, index) => {
    describe(one.name, () => {
      for (const exchange of one.exchanges) {
        const key = keyOf(one, exchange);
        test(exchange.name.length > 100 ? `${exchange.name.slice(0, 100)}…` : exchange.name, async () => {
          const ours = await through(WAYPOINT_PORT + index, exchange, "w");
          const theirs = envoy === null ? null : await through(ENVOY_PORT + index, exchange, "e");
          if (theirs !== null) envoyAnswers(key, theirs, ours);
          compare(key, ours);
          if (!hasBoth(exchange)) return;
          const ours2 = await overHttp2(WAYPOINT_PORT + index, exchange, exchange.http2!, "w");
          expect(ours2).toEqual(ours);
          const key2 = key + OVER_HTTP2;
          if (theirs !== null) {
            const theirs2 = await overHttp2(ENVOY_PORT + index, exchange, exchange.http2!, "e");
            if (recording ? !isDeepStrictEqual(theirs2, theirs) : recorded[key2] !== undefined) envoyAnswers(key2, theirs2, ours2);
            else expect(theirs2).toEqual(theirs);
          }
          if (recorded[key2] !== undefined) compare(key2, ours2);
        });
      }
    });
  });
});

testUnless(recording ? "the answers are being recorded" : null)("parity: docs/parity.md lists every difference", () => {
  const page = differencesPage(CORPUS, (key) => recorded[key], readRecordedEndpoints());
  if (process.env["PARITY_PAGE"] === "1") writeFileSync(PAGE, page);
  expect(readFileSync(PAGE, "utf8")).toBe(page);
});

/** @returns the directory. */
function writeConfig(directory: string, { jwks }: Tokens): string {
  const config = join(directory, "config");
  mkdirSync(config);
  const services = CORPUS.map(({ service: spec }, i) => ({ name: serviceOf(i), spec }));
  const documents = [...commonDocuments(), meshDocument(services), ...services.flatMap(({ name, spec }) => caseDocuments(name, spec, jwks))];
  writeFileSync(join(config, "parity.yaml"), documents.map((document) => JSON.stringify(document)).join("\n---\n"));
  return config;
}

/** @param place among several in this box. */
function startWaypoint({ config, state, log, normalization, place }: { readonly config: string; readonly state: string; readonly log: string; readonly normalization: Normalization; readonly place: number }): Bun.Subprocess {
  const serve = CORPUS.flatMap(({ service }, i) => ((service.normalization ?? "BASE") === normalization ? [`127.0.0.1:${WAYPOINT_PORT + i}=${servedAs(serviceOf(i))}`] : [])).join(",");
  const addresses = Object.entries({ admin: 15_100, metrics: 15_200, readiness: READINESS_PORT }).flatMap(([what, port]) => [`--${what}-address`, `127.0.0.1:${port + place}`]);
  return Bun.spawn(
    [process.execPath, join(ROOT, "src/main.ts"), "waypoint", "--config", config, "--state", state, "--gateway", GATEWAY, "--workers", "1", "--path-normalization", normalization, ...addresses, "--serve", serve],
    { stdout: "ignore", stderr: Bun.file(log) },
  );
}

function startEnvoy(directory: string, { jwks }: Tokens): Bun.Subprocess {
  const file = join(directory, "envoy.json");
  writeFileSync(file, JSON.stringify(envoyConfig(CORPUS.map(({ service: spec }, i) => ({ name: serviceOf(i), port: ENVOY_PORT + i, spec })), jwks)));
  return Bun.spawn([process.env["ENVOY_BIN"]!, "-c", file, "--concurrency", "1", "--use-dynamic-base-id", "--disable-hot-restart", "-l", "warning"], { stdout: "ignore", stderr: Bun.file(join(directory, "envoy.log")) });
}
