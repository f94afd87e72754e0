// What a person reads: the verbs, and all settings of a role, made from the settings table.

import { OPERATOR_VERBS } from "./operator-verbs.ts";
import { PROXY_VERB } from "../runtime/proxy-verb.ts";
import { entries, nearestOf, type Role } from "../runtime/settings.ts";
import { GROUPS, type SettingSpec, UNSUPPORTED_VARIABLES } from "../runtime/settings-table.ts";

export const VERBS = ["up", "ztunnel", "waypoint", "ca", "control", "cni", "proxy", "install", "uninstall", "check", "status", "version", "help"] as const;

const ROLE_TEXT: Readonly<Record<Role, { readonly line: string; readonly about: string; readonly examples: readonly string[] }>> = {
  up: {
    line: "the whole mesh for one machine: CA, configuration and ztunnel in one process",
    about: "Reads the YAML in --config, names every workload with a certificate of its own CA, and carries the traffic of the workloads that\nare opted in. Needs CAP_SYS_ADMIN and CAP_NET_ADMIN.",
    examples: ["weft up --config /etc/weft/config --state /var/lib/weft", "weft up --config ./mesh --state ./state --log info,access=off --metrics-address 127.0.0.1:15020"],
  },
  ztunnel: {
    line: "the node's proxy alone; certificates come from a CA elsewhere",
    about: "Carries the traffic of this node's workloads over mutual TLS. The environment variables of Istio's ztunnel are understood.",
    examples: ["weft ztunnel --config /etc/weft/config --ca-address ca.example:15012 --ca-root /etc/weft/root.pem --auth-token /run/secrets/token"],
  },
  waypoint: {
    line: "routes, access rules and limits for the requests of the services behind it; on a cluster weft waypoint apply",
    about: "Reads HTTP and decides request by request: routes, tokens, access, faults, limits, balancing, retries. Which Gateway it is says\nwhich policies hold; what it sends goes to the endpoints of the services.",
    examples: ["weft waypoint --config /etc/weft/config --state /var/lib/weft-waypoint --gateway shop/waypoint", "weft waypoint --config ./mesh --state ./waypoint --gateway shop/waypoint --serve 0.0.0.0:8080=shop/web.shop.svc.cluster.local:80"],
  },
  ca: {
    line: "the certificate authority alone, for several machines",
    about: "Signs workload certificates for the nodes whose tokens it knows (istio.v1.auth.IstioCertificateService over TLS). Keys are made at\nthe first start in --state, or given.",
    examples: ["weft ca --state /var/lib/weft-ca --ca-tokens /etc/weft/tokens --ca-listen [::]:15012"],
  },
  control: {
    line: "the control plane of a Kubernetes cluster: configuration over xDS, certificates, statuses, waypoints",
    about: "Watches the cluster, tells ztunnels and waypoints what concerns them, signs certificates for the pods of each node, writes the\nstatus of what it reads, and runs the waypoints that Gateways ask for. Several replicas serve; one of them writes.",
    examples: ["weft control --state /var/lib/weft", "weft control --kubeconfig ~/.kube/config --state ./state --ca-listen 127.0.0.1:15012 --server-names localhost"],
  },
  cni: {
    line: "the node's part of Kubernetes: which pods are in the mesh, and how they get there",
    about: "Watches the pods of this node, redirects the traffic of those that are opted in, and hands their network namespaces to the node's\nztunnel. Installs itself as a chained CNI plugin, so that no pod that must be in the mesh starts outside it.",
    examples: ["weft cni --node a --cni-bin-dir /host/opt/cni/bin --daemonset weft-system/weft-cni"],
  },
};

const WIDTH = 100;
const INDENT = "      ";

export function overview(): string {
  const verbs: [string, string][] = [
    ...(Object.keys(ROLE_TEXT) as Role[]).map((role): [string, string] => [role, ROLE_TEXT[role].line]),
    [PROXY_VERB, "ztunnel, as the chart of Istio's ztunnel starts its image: with the volumes of that chart"],
    ...Object.entries(OPERATOR_VERBS).filter(([verb]) => verb !== "waypoint").map(([verb, { line }]): [string, string] => [verb, line]),
    ["version", "what this is"],
    ["help", "this text; weft help VERB for the options of one verb"],
  ];
  return [
    "weft: an ambient service mesh in one program", "", "Usage: weft VERB [OPTIONS]", "",
    ...verbs.map(([verb, line]) => `  ${verb.padEnd(10)}${line}`), "",
    "A namespace is opted in by the label istio.io/dataplane-mode: ambient.",
    "Begin with:   weft up --config DIR --state DIR", "On a cluster: weft install", "Options:      weft up --help", "",
  ].join("\n");
}

export function roleHelp(role: Role): string {
  const { line, about, examples } = ROLE_TEXT[role];
  const lines = [`weft ${role}: ${line}`, "", about, "", `Usage: weft ${role} [OPTIONS]`, ""];
  for (const group of GROUPS) {
    const specs = entries().map(([, spec]) => spec).filter((spec) => spec.group === group && spec.roles.includes(role));
    if (specs.length === 0) continue;
    lines.push(`${group}:`);
    for (const spec of specs) lines.push(...optionLines(role, spec));
    lines.push("");
  }
  lines.push("An option beats its environment variable, which beats the default. Durations: 300ms, 10s, 1m30s.");
  const unsupported = UNSUPPORTED_VARIABLES.filter(({ roles }) => roles?.includes(role) !== true).map(({ name }) => name);
  if (role !== "ca" && role !== "control") lines.push(...wrap(`Variables of Istio's ztunnel without effect here are reported at the start: ${unsupported.join(", ")}.`, ""));
  lines.push("", "Examples:", ...examples.map((example) => `  ${example}`), "");
  return lines.join("\n");
}

/** The message about a verb that does not exist. */
export function unknownVerb(verb: string): string {
  const nearest = nearestOf(verb, VERBS);
  return `weft: ${JSON.stringify(verb.slice(0, 80))} is not a verb${nearest === null ? "" : `; did you mean ${nearest}?`} (weft help lists them)\n`;
}

function optionLines(role: Role, spec: SettingSpec): string[] {
  const given = spec.type.placeholder === "true|false" ? `--[no-]${spec.flag}` : `--${spec.flag} ${spec.type.placeholder}`;
  const facts: string[] = [];
  if (spec.required?.includes(role) === true) facts.push("required");
  else if (spec.fallback !== null && spec.flag !== "node") {
    const text = spec.type.format(spec.fallback);
    if (text !== "") facts.push(`default ${text}`);
  } else if (spec.flag === "node") facts.push("default: the host's name");
  if (spec.variables.length > 0) facts.push(`$${spec.variables.join(", $")}`);
  return [`  ${given}`, ...wrap(`${spec.help}. [${facts.join("; ")}]`, INDENT)];
}

function wrap(text: string, indent: string): string[] {
  const lines: string[] = [];
  let line = indent;
  for (const word of text.split(" ")) {
    if (line.length > indent.length && line.length + word.length > WIDTH) {
      lines.push(line.trimEnd());
      line = indent;
    }
    line += `${word} `;
  }
  return [...lines, line.trimEnd()];
}
