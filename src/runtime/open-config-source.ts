// The source of configuration that the settings name: a directory, or a control plane. Each is loaded only where it is the one: a directory
// brings in YAML and the schemas of every kind, a control plane HTTP/2 and messages.

import type { JsonObject } from "@bufbuild/protobuf";
import type { LocalWorkload } from "../mesh/local-workload.ts";
import type { MeshStore } from "../mesh/store.ts";
import { systemTimers } from "../net/timers.ts";
import type { ConfigSource, ConfigState } from "./config-source.ts";
import { authToken, prefixedHeaders, rootCa } from "./control-plane-settings.ts";
import type { Runtime } from "./runtime.ts";
import { hostPort } from "./setting-types.ts";
import type { Settings } from "./settings.ts";
import { VERSION } from "./version.ts";

export interface OpenConfigOptions {
  readonly settings: Settings;
  readonly runtime: Runtime;
  /** Of whom a control plane is told, and what is asked of it. */
  readonly client: "node" | "waypoint";
  /** Kept up by a control plane's source; one that reads a directory leaves it alone. */
  readonly store: MeshStore;
  readonly onChange: (state: ConfigState) => void;
  readonly environment: Readonly<Record<string, string | undefined>>;
}

export interface OpenConfig {
  readonly source: ConfigSource;
  /** Null where the source knows by itself which workloads live here. */
  readonly setLocalWorkloads: ((workloads: readonly LocalWorkload[]) => void) | null;
}

/** @returns null when the process was asked to stop before there was a first state. @throws with words for the operator. */
export async function openConfigSource({ settings, runtime, client, store, onChange, environment }: OpenConfigOptions): Promise<OpenConfig | null> {
  if (settings.xdsAddress === null) {
    if (settings.config === null) throw new Error("no configuration: --config is not set");
    const { readiness } = runtime.lifecycle;
    const tell = ({ diagnostics }: ConfigState): void => readiness.remark("configuration", diagnostics.find(({ file, severity }) => file === DIRECTORY && severity === "error")?.message ?? null);
    const { ConfigDirectory } = await import("./config-directory.ts");
    const source = await ConfigDirectory.open({
      directory: settings.config,
      stateDirectory: settings.state,
      translation: {
        node: settings.node, clusterId: settings.clusterId, clusterDomain: settings.clusterDomain, trustDomain: settings.trustDomain, network: settings.network,
        rootNamespace: settings.rootNamespace, remoteGatewayNamespaces: settings.remoteGatewayNamespaces, serviceCidrs: settings.serviceCidrs, servedHosts: settings.serve.map(({ hostname }) => hostname),
      },
      onChange: (state) => {
        tell(state);
        onChange(state);
      },
    });
    tell(source.state);
    return { source, setLocalWorkloads: null };
  }
  const [{ XdsSource }, { ADDRESS_TYPE, AUTHORIZATION_TYPE }] = await Promise.all([import("./xds-source.ts"), import("../xds/resource.ts")]);
  // The schemas of L7 are some MiB that a node has no use for.
  const l7 = client === "waypoint" ? (await import("../xds/client/l7-reader.ts")).L7_READER : null;
  const { lifecycle, log, random } = runtime;
  const source = await XdsSource.open({
    client: {
      channel: {
        address: hostPort.format(settings.xdsAddress), serverName: settings.xdsHostname, rootCa: rootCa(settings.xdsRoot), token: authToken(settings.authToken),
        clusterId: settings.clusterId, headers: prefixedHeaders(environment, "XDS_HEADER_"),
      },
      node: nodeMessage(settings, client, environment),
      types: [AUTHORIZATION_TYPE, ADDRESS_TYPE, ...(l7 === null ? [] : Object.values(l7.codecs).map(({ typeUrl }) => typeUrl))],
    },
    l7,
    store,
    stateDirectory: settings.state,
    onChange,
    onConnection: (amiss) => lifecycle.readiness.remark("control plane", amiss),
    log: log.scope("config"),
    metrics: runtime.metrics,
    random,
    timers: systemTimers,
  }, lifecycle.stop);
  return source === null ? null : { source, setLocalWorkloads: (workloads) => source.setLocalWorkloads(workloads) };
}

/** The place of diagnostics of the directory as a whole. */
const DIRECTORY = ".";
const METADATA_PREFIX = "ISTIO_META_";
const JSON_METADATA_PREFIX = "ISTIO_METAJSON_";

/** As the reference says who it is. What the environment says in ISTIO_META_* goes along without the prefix. */
export function nodeMessage(settings: Settings, client: "node" | "waypoint", environment: Readonly<Record<string, string | undefined>>): { readonly id: string; readonly metadata: JsonObject } {
  const { podName, podNamespace, instanceIp, node, clusterId, network, gateway } = settings;
  const metadata: JsonObject = {
    NAME: podName, NAMESPACE: podNamespace, INSTANCE_IPS: instanceIp, NODE_NAME: node, CLUSTER_ID: clusterId, WEFT_VERSION: VERSION,
    ...(network === "" ? {} : { NETWORK: network }),
    ...(gateway === null ? {} : { WEFT_GATEWAY: gateway }),
  };
  for (const [variable, value] of Object.entries(environment)) {
    if (value === undefined) continue;
    if (variable.startsWith(METADATA_PREFIX)) metadata[variable.slice(METADATA_PREFIX.length)] = value;
    else if (variable.startsWith(JSON_METADATA_PREFIX)) {
      const json = parseJson(value);
      if (json !== undefined) metadata[variable.slice(JSON_METADATA_PREFIX.length)] = json;
    }
  }
  return { id: `${client === "node" ? "ztunnel" : "waypoint"}~${instanceIp}~${podName}.${podNamespace}~${podNamespace}.svc.${settings.clusterDomain}`, metadata };
}

/** Undefined for what is no JSON: it is metadata, nothing depends on it here. */
function parseJson(text: string): JsonObject[string] | undefined {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
