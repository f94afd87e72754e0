import { expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, renameSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MeshStore } from "../mesh/store.ts";
import { Lifecycle } from "./lifecycle.ts";
import type { Runtime } from "./runtime.ts";
import { parseSettings } from "./settings.ts";
import { prefixedHeaders } from "./control-plane-settings.ts";
import { nodeMessage, openConfigSource } from "./open-config-source.ts";
import { VERSION } from "./version.ts";

const ENVIRONMENT = {
  XDS_ADDRESS: "istiod:15012", CA_ADDRESS: "istiod:15012", POD_NAME: "zt-1", POD_NAMESPACE: "istio-system", INSTANCE_IP: "198.18.0.7", NODE_NAME: "node-1", NETWORK: "n1",
  ISTIO_META_ZONE: "z1", ISTIO_METAJSON_LABELS: '{"app":"ztunnel"}', ISTIO_METAJSON_BROKEN: "{", "XDS_HEADER_X-Tenant": "a", WAYPOINT_GATEWAY: "shop/wp",
};
const settingsOf = (role: "ztunnel" | "waypoint") => {
  const parsed = parseSettings(role, [], ENVIRONMENT);
  if (!parsed.ok) throw new Error(parsed.error.join());
  return parsed.value.settings;
};

test("a node says who it is as the reference does, and what the environment adds", () => {
  expect(nodeMessage(settingsOf("ztunnel"), "node", ENVIRONMENT)).toEqual({
    id: "ztunnel~198.18.0.7~zt-1.istio-system~istio-system.svc.cluster.local",
    metadata: { NAME: "zt-1", NAMESPACE: "istio-system", INSTANCE_IPS: "198.18.0.7", NODE_NAME: "node-1", CLUSTER_ID: "Kubernetes", NETWORK: "n1", WEFT_VERSION: VERSION, ZONE: "z1", LABELS: { app: "ztunnel" } },
  });
});

test("a waypoint says whose it is", () => {
  const { id, metadata } = nodeMessage(settingsOf("waypoint"), "waypoint", {});
  expect([id, metadata["WEFT_GATEWAY"]]).toEqual(["waypoint~198.18.0.7~zt-1.istio-system~istio-system.svc.cluster.local", "shop/wp"]);
});

test("headers come from the environment", () => {
  expect(prefixedHeaders(ENVIRONMENT, "XDS_HEADER_")).toEqual({ "x-tenant": "a" });
  expect(prefixedHeaders({ "XDS_HEADER_a b": "x" }, "XDS_HEADER_")).toEqual({});
});

test("a configuration directory that cannot be read is named by readiness, until it can", async () => {
  const directory = mkdtempSync(join(tmpdir(), "weft-config-"));
  const config = join(directory, "config");
  mkdirSync(config);
  const parsed = parseSettings("waypoint", ["--config", config, "--state", join(directory, "state"), "--gateway", "shop/wp"], {});
  if (!parsed.ok) throw new Error(parsed.error.join());
  const lifecycle = new Lifecycle();
  const { readiness } = lifecycle;
  mkdirSync(join(directory, "state"), { mode: 0o700 });
  const runtime = { lifecycle } as unknown as Runtime;
  const opened = await openConfigSource({ settings: parsed.value.settings, runtime, client: "waypoint", store: new MeshStore(), onChange: () => {}, environment: {} });
  const { source } = opened!;
  expect(readiness.remarks).toEqual([]);
  renameSync(config, `${config}-away`);
  source.reload();
  expect(readiness.remarks).toEqual([expect.stringMatching(/^configuration: cannot read the directory .*config: .*; what was in force stays$/)]);
  renameSync(`${config}-away`, config);
  source.reload();
  expect(readiness.remarks).toEqual([]);
  await source[Symbol.asyncDispose]();
  rmSync(directory, { recursive: true });
});
