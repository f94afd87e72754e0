// How a waypoint and Envoy treat the endpoints of a service: balancing, consistent hashing, health checks, ejection. What is found out
// about both is the same, or differences.ts says why not, and as recorded in envoy-endpoints.json, to which the waypoint is held where
// ENVOY_BIN names no Envoy; a run with one writes it anew when PARITY_RECORD=1.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { must, NamespaceLinks } from "../../../src/net/links.ts";
import { unsealed } from "../../kit/box.ts";
import { ip } from "../../kit/mesh-records.ts";
import { describeUnless, needsBinary } from "../../kit/skip.ts";
import { until } from "../../kit/until.ts";
import { request } from "../description.ts";
import { GATEWAY, servedAs } from "../mesh-yaml.ts";
import { converse } from "../raw-client.ts";
import type { Facts, World } from "./description.ts";
import { ENDPOINT_DIFFERENCES, endpointReasonOf, factKey } from "./differences.ts";
import { envoyFleets } from "./envoy-fleet.ts";
import { Fleet } from "./fleet.ts";
import { commonDocuments, fleetDocuments } from "./mesh-fleet.ts";
import { RECORDED_ENDPOINTS, type RecordedEndpoints, readRecordedEndpoints } from "./recorded.ts";
import { SCENARIOS } from "./scenarios.ts";

setDefaultTimeout(120_000);

const ROOT = join(import.meta.dir, "../../..");
const WAYPOINT_PORT = 20_000;
const ENVOY_PORT = 25_000;
const ENDPOINT_PORT = 9_000;
const ADMIN_PORTS = { admin: 15_100, metrics: 15_200, readiness: 15_300 };
const ENVOY_ADMIN_PORT = 15_400;
const READY_MS = 60_000;
const ENDPOINTS_MAX = Math.max(...SCENARIOS.map(({ spec }) => spec.endpoints));
const SIDES = { waypoint: { net: 8, port: WAYPOINT_PORT }, envoy: { net: 9, port: ENVOY_PORT } } as const;
type Side = keyof typeof SIDES;
/** Not loopback: an endpoint of the mesh may not be. Each proxy has endpoints of its own: both check their health. */
const addressesOf = (side: Side, count: number): string[] => Array.from({ length: count }, (_, i) => `198.18.${SIDES[side].net}.${i + 1}`);
const serviceOf = (index: number): string => `fleet-${index}`;

const noEnvoy = needsBinary("ENVOY_BIN");
const recording = noEnvoy === null && process.env["PARITY_RECORD"] === "1";
const recorded: RecordedEndpoints = recording ? {} : readRecordedEndpoints();

test("parity of endpoints: what is recorded and what differs is of scenarios that are there", () => {
  const names = SCENARIOS.map(({ name }) => name);
  expect(names.filter((name, i) => names.indexOf(name) !== i)).toEqual([]);
  if (recording) return;
  expect(Object.keys(recorded)).toEqual(names);
  const known = new Set(Object.entries(recorded).flatMap(([name, { envoy }]) => Object.keys(envoy).map((fact) => factKey(name, fact))));
  expect(ENDPOINT_DIFFERENCES.flatMap(({ facts }) => facts).filter((key) => !known.has(key))).toEqual([]);
});

describeUnless(unsealed)("parity of endpoints", () => {
  const directory = mkdtempSync(join(tmpdir(), "weft-parity-endpoints-"));
  const fleets = new Map<string, Fleet>();
  const started: Bun.Subprocess[] = [];
  const fleetOf = (side: Side, index: number): Fleet => fleets.get(`${side} ${index}`)!;

  beforeAll(async () => {
    using links = must(NamespaceLinks.open(null));
    const sides: readonly Side[] = noEnvoy === null ? ["waypoint", "envoy"] : ["waypoint"];
    for (const side of sides) {
      for (const address of addressesOf(side, ENDPOINTS_MAX)) must(links.addAddress(must(links.loopback()), ip(address), 32));
      for (const [index, { spec }] of SCENARIOS.entries()) {
        const fleet = new Fleet(addressesOf(side, spec.endpoints), ENDPOINT_PORT + index);
        fleets.set(`${side} ${index}`, fleet);
        await fleet.start();
      }
    }
    const log = join(directory, "waypoint.log");
    started.push(startWaypoint(directory, log));
    if (noEnvoy === null) started.push(startEnvoy(directory));
    await until("the waypoint to be ready", READY_MS, () => fetch(`http://127.0.0.1:${ADMIN_PORTS.readiness}/healthz/ready`).then(({ ok }) => ok, () => false)).catch((error: unknown) => {
      throw new Error(`${String(error)}\n${readFileSync(log, "utf8").slice(-4000)}`);
    });
    if (noEnvoy === null) {
      await until("Envoy to be ready", READY_MS, async () => (await converse(ENVOY_PORT, request("/")))[0]!.status > 0).catch((error: unknown) => {
        throw new Error(`${String(error)}\n${readFileSync(join(directory, "envoy.log"), "utf8").slice(-4000)}`);
      });
    }
  }, 2 * READY_MS);

  afterAll(async () => {
    for (const one of started) one.kill("SIGKILL");
    await Promise.all(started.map(({ exited }) => exited));
    for (const fleet of fleets.values()) await fleet[Symbol.asyncDispose]();
    rmSync(directory, { recursive: true, force: true });
    if (recording) writeFileSync(RECORDED_ENDPOINTS, `${JSON.stringify(Object.fromEntries(SCENARIOS.map(({ name }) => [name, recorded[name]])), null, 1)}\n`);
  });

  const worldOf = (side: Side, index: number): World => ({
    fleet: fleetOf(side, index),
    async ask({ path = "/", headers = {}, from } = {}) {
      const [answer] = await converse(SIDES[side].port + index, request(path, { headers: { connection: "close", ...headers } }), from === undefined ? {} : { from });
      const value = (name: string): string | null => answer!.headers.find(([key]) => key === name)?.[1] ?? null;
      const endpoint = value("x-endpoint");
      // Envoy's main thread ejects, and tells the worker: it has when it answers this.
      if (side === "envoy" && answer!.status >= 500) await (await fetch(`http://127.0.0.1:${ENVOY_ADMIN_PORT}/ready`)).text();
      return { status: answer!.status, endpoint: endpoint === null ? null : Number(endpoint), setCookie: value("set-cookie") };
    },
  });

  SCENARIOS.forEach(({ name, find }, index) => {
    test(name, async () => {
      const [ours, theirs] = await Promise.all([find(worldOf("waypoint", index)), noEnvoy === null ? find(worldOf("envoy", index)) : null]);
      if (recording) recorded[name] = { envoy: theirs!, ...(isDifferent(name, theirs!, ours) ? { waypoint: ours } : {}) };
      else if (theirs !== null) expect(theirs).toEqual(recorded[name]!.envoy);
      const { envoy, waypoint } = recorded[name]!;
      for (const [fact, value] of Object.entries(ours)) {
        const differs = endpointReasonOf(factKey(name, fact)) !== null;
        if (!differs) expect([fact, value]).toEqual([fact, envoy[fact]!]);
        else {
          expect([fact, value]).not.toEqual([fact, envoy[fact]!]);
          expect([fact, value]).toEqual([fact, waypoint![fact]!]);
        }
      }
      expect(Object.keys(ours)).toEqual(Object.keys(envoy));
    });
  });
});

const isDifferent = (name: string, theirs: Facts, ours: Facts): boolean => Object.keys(ours).some((fact) => ours[fact] !== theirs[fact] && endpointReasonOf(factKey(name, fact)) !== null);

function startWaypoint(directory: string, log: string): Bun.Subprocess {
  const config = join(directory, "config");
  mkdirSync(config);
  const sizes = [...new Set(SCENARIOS.map(({ spec }) => spec.endpoints))];
  const documents = [...commonDocuments(addressesOf("waypoint", ENDPOINTS_MAX), sizes), ...SCENARIOS.flatMap(({ spec }, i) => fleetDocuments(serviceOf(i), `198.18.250.${i + 1}`, spec, ENDPOINT_PORT + i))];
  writeFileSync(join(config, "fleets.yaml"), documents.map((document) => JSON.stringify(document)).join("\n---\n"));
  const serve = SCENARIOS.map((_, i) => `127.0.0.1:${WAYPOINT_PORT + i}=${servedAs(serviceOf(i))}`).join(",");
  const addresses = Object.entries(ADMIN_PORTS).flatMap(([what, port]) => [`--${what}-address`, `127.0.0.1:${port}`]);
  return Bun.spawn([process.execPath, join(ROOT, "src/main.ts"), "waypoint", "--config", config, "--state", join(directory, "state"), "--gateway", GATEWAY, "--workers", "1", ...addresses, "--serve", serve], { stdout: "ignore", stderr: Bun.file(log) });
}

function startEnvoy(directory: string): Bun.Subprocess {
  const file = join(directory, "envoy.json");
  const fleets = SCENARIOS.map(({ spec }, i) => ({ name: serviceOf(i), port: ENVOY_PORT + i, spec, addresses: addressesOf("envoy", spec.endpoints), endpointPort: ENDPOINT_PORT + i }));
  writeFileSync(file, JSON.stringify(envoyFleets(fleets, ENVOY_ADMIN_PORT)));
  return Bun.spawn([process.env["ENVOY_BIN"]!, "-c", file, "--concurrency", "1", "--use-dynamic-base-id", "--disable-hot-restart", "-l", "warning"], { stdout: "ignore", stderr: Bun.file(join(directory, "envoy.log")) });
}
