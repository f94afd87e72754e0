// Configuration files: some mutated from good ones, applied together over a good state and taken back.
//   - nothing throws, nothing hangs, every diagnostic names a file, a line of it and a code
//   - a file that is in error keeps in force what was read from it before
//   - what is in force depends on the files, not on the way to them: with the good files back, all is as it was

import { deepStrictEqual } from "node:assert";
import { type Random, seededRandom } from "../../src/core/ports.ts";
import { parseCidr } from "../../src/core/ip.ts";
import { parseTrustDomain } from "../../src/core/spiffe.ts";
import { type Diagnostic, formatDiagnostic } from "../../src/resources/diagnostic.ts";
import { deepEqual } from "../../src/resources/mesh-delta.ts";
import { type Evaluation, type FileReading, ResourceSet } from "../../src/resources/resource-set.ts";
import { describeIdentity, type ResourceIdentity } from "../../src/resources/resource.ts";
import { below } from "./choices.ts";

export const name = "yaml";

/** An update of a few small files takes well under a millisecond; this one found something that grows without measure. */
const UPDATE_MS_MAX = 2000;
/** So many files at most are bad at a time: the translation, which costs as much as reading one of them, is then shared. */
const BAD_FILES_MAX = 8;

const GOOD: Readonly<Record<string, string>> = {
  "namespace.yaml": `apiVersion: v1
kind: Namespace
metadata:
  name: shop
  labels:
    istio.io/dataplane-mode: ambient
    istio.io/use-waypoint: wp
`,
  "service.yaml": `apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  selector: {app: web}
  ports:
  - {name: http, port: 80, targetPort: http}
`,
  "entry.yaml": `apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata:
  name: web-1
  namespace: shop
  annotations:
    weft.dev/node: here
    weft.dev/netns: /run/netns/web
    weft.dev/exclude-uids: "0,1000-1999"
spec:
  address: 198.18.0.7
  labels: {app: web}
  ports: {http: 8080}
  locality: r/z
`,
  "policy.yaml": `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny, namespace: shop}
spec:
  selector: {matchLabels: {app: web}}
  action: DENY
  rules:
  - from:
    - source: {notPrincipals: ["cluster.local/ns/shop/sa/*"], ipBlocks: [198.51.100.0/24]}
    to:
    - operation: {ports: ["8080"]}
    when:
    - {key: destination.ip, values: [198.18.0.0/15]}
`,
  "peer.json": `{"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication", "metadata": {"name": "default", "namespace": "istio-system"},
 "spec": {"mtls": {"mode": "STRICT"}}}
`,
  "list.yml": `apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Service
  metadata: {name: headless, namespace: shop}
  spec: {clusterIP: None, selector: &s {app: web}, ports: [{port: 9}]}
- apiVersion: v1
  kind: Service
  metadata: {name: other, namespace: shop}
  spec: {clusterIP: 198.19.0.1, selector: *s, ports: [{port: 9}]}
`,
  "waypoint.yaml": `apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: wp, namespace: shop}
spec: {gatewayClassName: weft-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
`,
  "http-route.yaml": `apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: shop}
spec:
  parentRefs: [{group: "", kind: Service, name: web, port: 80}]
  rules:
  - matches:
    - path: {type: RegularExpression, value: "/v[12]/.*"}
      headers: [{name: x-a, value: b}]
      queryParams: [{name: q, value: "1"}]
    backendRefs: [{name: web, port: 80, weight: 9}, {name: other, port: 9}]
    timeouts: {request: 10s, backendRequest: 1s}
    retry: {codes: [503], attempts: 2, backoff: 10ms}
`,
  "http-filters.yaml": `apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: filters, namespace: shop}
spec:
  parentRefs: [{group: "", kind: Service, name: web}]
  rules:
  - filters:
    - type: RequestHeaderModifier
      requestHeaderModifier: {set: [{name: x-b, value: c}], remove: [x-d]}
    - type: URLRewrite
      urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: /x}}
    - {type: RequestMirror, requestMirror: {backendRef: {name: other, port: 9}, percent: 10}}
    backendRefs: [{name: web, port: 80}]
`,
  "routes.yaml": `apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: grpc, namespace: shop}
spec: {parentRefs: [{group: "", kind: Service, name: other}], rules: [{matches: [{method: {service: a.B, method: C}}], backendRefs: [{name: other, port: 9}]}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {name: tls, namespace: shop}
spec: {targetRefs: [{group: "", kind: Service, name: other}], validation: {hostname: a.example, wellKnownCACertificates: System}}
`,
  "virtual-service.yaml": `apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: api, namespace: shop}
spec:
  hosts: [api.example]
  http:
  - match: [{uri: {prefix: /a}, headers: {x-a: {regex: "b.*"}}, withoutHeaders: {x-c: {}}, port: 443}]
    route: [{destination: {host: api.example, subset: v1, port: {number: 443}}, weight: 90}, {destination: {host: web}, weight: 10}]
  - redirect: {uri: /b, redirectCode: 308}
`,
  "retries.yaml": `apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: retries, namespace: shop}
spec:
  hosts: [b.example]
  http:
  - route: [{destination: {host: b.example}}]
    timeout: 1.5s
    retries: {attempts: 2, retryOn: "5xx,429", perTryTimeout: 1s}
    fault: {abort: {percentage: {value: 0.1}, grpcStatus: UNAVAILABLE}}
`,
  "destination-rule.yaml": `apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: api, namespace: shop}
spec:
  host: api.example
  trafficPolicy:
    loadBalancer: {consistentHash: {httpHeaderName: x-user}, localityLbSetting: {distribute: [{from: a/b, to: {a/b: 100}}]}}
    connectionPool: {tcp: {maxConnections: 5}, http: {maxRetries: 2}}
    outlierDetection: {consecutive5xxErrors: 5, interval: 10s}
    tls: {mode: SIMPLE, sni: api.example}
  subsets: [{name: v1, labels: {version: v1}}]
`,
  "service-entry.yaml": `apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: api, namespace: shop}
spec: {hosts: [api.example, b.example], ports: [{number: 443, name: tls, protocol: TLS}, {number: 80, name: http, protocol: HTTP}], resolution: STATIC, endpoints: [{address: 198.18.0.9, labels: {version: v1}}]}
`,
  "access.yaml": `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: l7, namespace: shop}
spec:
  targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: wp}]
  action: CUSTOM
  provider: {name: ask}
  rules: [{to: [{operation: {paths: ["/a/{*}"], methods: [GET]}}], when: [{key: "request.auth.claims[a]", values: [b]}]}]
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: jwt, namespace: shop}
spec: {targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: wp}], jwtRules: [{issuer: "https://a.example", fromCookies: [t], outputClaimToHeaders: [{header: x-a, claim: a.b}]}]}
---
apiVersion: weft.dev/v1alpha1
kind: LoginPolicy
metadata: {name: login, namespace: shop}
spec: {targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: wp}], issuer: "https://a.example", clientId: c, clientSecretRef: {name: s}, cookie: {keysRef: {name: s}}}
---
apiVersion: v1
kind: Secret
metadata: {name: s, namespace: shop}
stringData: {clientSecret: x, keys: "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"}
`,
  "own.yaml": `apiVersion: weft.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: web, namespace: shop}
spec:
  targetRefs: [{kind: Service, name: web}]
  healthCheck: {http: {path: /h}, interval: 5s}
  rateLimits: {local: [{name: a, requests: 5, per: 1s, keys: [{header: x-a}]}]}
  faults: [{percent: 1, delay: 10ms, matches: [{path: {prefix: /a}}]}]
---
apiVersion: weft.dev/v1alpha1
kind: MeshConfig
metadata: {name: mesh, namespace: istio-system}
spec: {extensionProviders: [{name: ask, envoyExtAuthzGrpc: {service: web.shop.svc.cluster.local, port: 80}}]}
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: mesh, namespace: istio-system}
spec: {tracing: [{randomSamplingPercentage: 1}], accessLogging: [{filter: {expression: response.code >= 400}}]}
`,
};
const PATHS = Object.keys(GOOD);
/** The one that a good file declares. */
const NAMESPACE = "shop";
/** Files of several documents. */
const SEVERAL = new Set(["list.yml", "routes.yaml", "access.yaml", "own.yaml"]);

const TOKENS = [
  "---", "---\n", "\n---\n", "...", "- ", "? ", ": ", "{", "}", "[", "]", ",", "&a ", "*a", "*s", "!x ", "!!str ", "|", ">-", "'", "\"", "#", "%YAML 1.2\n", "\t", "  ", "\n", "\r\n", "\r", "\0", "\ufeff",
  "null", "~", "true", "0x10", ".nan", "1e999", "-1", "65536", "4294967296", "__proto__", "constructor", "toString", "apiVersion", "kind", "metadata", "spec", "name", "items", "List",
  "Service", "WorkloadEntry", "AuthorizationPolicy", "ExternalName", "ALLOW", "CUSTOM", "selector", "matchLabels", "methods", "portLevelMtls", "istio.io/use-waypoint", "istio-system", "shop", "web", "::1", "*", "a*b",
  "HTTPRoute", "VirtualService", "TrafficPolicy", "targetRefs", "parentRefs", "backendRefs", "matches", "filters", "RequestRedirect", "ExtensionRef", "(?=a)", "(a{99}){99}", "/a/../b", "%2F", "0s", "99999h", "-1s", "1e9", "10.5", "{*}", "{**}", "api.example", "wp",
];

const readings = (texts: Readonly<Record<string, string>>): FileReading[] => PATHS.map((path) => ({ kind: "text", path, text: texts[path]! }));

function goodState(): { readonly set: ResourceSet; readonly good: Evaluation } {
  const set = new ResourceSet({
    node: "here", clusterId: "Kubernetes", clusterDomain: "cluster.local", trustDomain: parseTrustDomain("cluster.local")!, network: "",
    rootNamespace: "istio-system", serviceCidrs: [parseCidr("198.19.0.0/16")!],
  });
  const good = set.update(readings(GOOD));
  if (good.diagnostics.length > 0) throw new Error(`the good files are not good: ${formatDiagnostic(good.diagnostics[0]!)}`);
  return { set, good };
}

export function run({ seed, iterations }: { readonly seed: number; readonly iterations: number }): { readonly iterations: number } {
  const random = seededRandom(seed);
  const { set, good } = goodState();
  for (let done = 0; done < iterations; ) {
    const bad = badFiles(random, Math.min(1 + below(random, BAD_FILES_MAX), iterations - done));
    try {
      check(set, good, bad);
    } catch (cause) {
      const texts = [...bad].map(([path, text]) => `${path}: ${JSON.stringify(text)}`).join("\n");
      throw new Error(`yaml: seed ${seed}, after ${done} inputs: ${cause instanceof Error ? cause.message : String(cause)}\n${texts}`, { cause });
    }
    done += bad.size;
  }
  return { iterations };
}

/** `count` of the good files, each mutated. */
function badFiles(random: Random, count: number): Map<string, string> {
  const bad = new Map<string, string>();
  while (bad.size < count) {
    // Of two the shorter one: reading a file takes as long as it is long.
    const [one, other] = [PATHS[below(random, PATHS.length)]!, PATHS[below(random, PATHS.length)]!];
    const path = GOOD[one]!.length < GOOD[other]!.length ? one : other;
    let text = bad.get(path) ?? GOOD[path]!;
    for (let edits = 1 + below(random, 3); edits > 0; edits--) text = mutate(random, text);
    bad.set(path, text);
  }
  return bad;
}

function check(set: ResourceSet, good: Evaluation, bad: ReadonlyMap<string, string>): void {
  const texts = { ...GOOD, ...Object.fromEntries(bad) };
  const startMs = performance.now();
  const state = set.update(readings(texts));
  if (performance.now() - startMs > UPDATE_MS_MAX && isSlow(texts)) throw new Error(`takes more than ${UPDATE_MS_MAX} ms`);
  for (const diagnostic of state.diagnostics) {
    if (!hasItsPlace(diagnostic, texts)) throw new Error(`a diagnostic without its place: ${formatDiagnostic(diagnostic)}`);
  }
  const inForce = new Set(state.lastGood.flatMap((file) => file.resources.map(nameOf)));
  for (const [path, text] of bad) checkKept({ path, text, state, good, inForce });
  const back = set.update(readings(GOOD));
  const [statuses, wanted] = [byName(back.statuses), byName(good.statuses)];
  if (!deepEqual(back.mesh, good.mesh) || !deepEqual(back.l7, good.l7) || !deepEqual(statuses, wanted) || !deepEqual(back.localWorkloads, good.localWorkloads) || back.diagnostics.length > 0) {
    deepStrictEqual({ ...back.mesh, ...back.l7, statuses, local: back.localWorkloads, diagnostics: back.diagnostics }, { ...good.mesh, ...good.l7, statuses: wanted, local: good.localWorkloads, diagnostics: [] });
    throw new Error("with the good files back, the state is another");
  }
}

function hasItsPlace({ file, line, column, message, code }: Diagnostic, texts: Readonly<Record<string, string>>): boolean {
  if (!PATHS.includes(file) || message === "" || code.length === 0) return false;
  // What is in force from the last good text points into that text.
  const lineCount = Math.max(texts[file]!.split("\n").length, GOOD[file]!.split("\n").length);
  return line >= 1 && line <= lineCount && column >= 1;
}

const nameOf = ({ kind, namespace, name }: ResourceIdentity): string => `${kind}/${namespace}/${name}`;
/** Their order has no meaning: what has changed comes last. */
const byName = (statuses: Evaluation["statuses"]): Evaluation["statuses"] => [...statuses].sort((a, b) => (nameOf(a) < nameOf(b) ? -1 : 1));

interface BadFile {
  readonly path: string;
  readonly text: string;
  readonly state: Evaluation;
  readonly good: Evaluation;
  /** What is in force in `state`, by nameOf. */
  readonly inForce: ReadonlySet<string>;
}

/** A file in error keeps in force what was read from it before. */
function checkKept({ path, text, state, good, inForce }: BadFile): void {
  // What was read well from the new text may still refer to what another file no longer has: the file itself is not in error for it.
  const written = state.lastGood.find((file) => file.path === path);
  const readWell = new Set((written?.resources ?? []).filter(({ document }) => text.includes(written!.documents[document]!.text)).map(describeIdentity));
  const isOfOthers = ({ resource, code }: Diagnostic): boolean => readWell.has(resource) || (code === "unknown_namespace" && resource.includes(` ${NAMESPACE}/`));
  const errors = state.diagnostics.filter((diagnostic) => diagnostic.file === path && diagnostic.severity === "error" && !isOfOthers(diagnostic));
  // In a file of several, one may be in error and another renamed.
  const single = !SEVERAL.has(path) || errors.some((diagnostic) => diagnostic.resource === "");
  if (errors.length === 0 || !single) return;
  const before = good.lastGood.find((file) => file.path === path)!;
  for (const resource of before.resources) {
    if (!inForce.has(nameOf(resource))) throw new Error(`${nameOf(resource)} is no longer in force, though ${path} is in error`);
  }
}

/** True when it is slow each time: once may have been the machine. */
function isSlow(texts: Readonly<Record<string, string>>): boolean {
  for (let attempt = 0; attempt < 3; attempt++) {
    const { set } = goodState();
    const startMs = performance.now();
    set.update(readings(texts));
    if (performance.now() - startMs <= UPDATE_MS_MAX) return false;
  }
  return true;
}


function mutate(random: Random, text: string): string {
  const at = below(random, text.length + 1);
  const lines = text.split("\n");
  const line = below(random, lines.length);
  switch (below(random, 12)) {
    case 0: return text.slice(0, at);
    case 1: return text.slice(0, at) + text.slice(at + 1 + below(random, 8));
    case 2: return text.slice(0, at) + String.fromCharCode(below(random, below(random, 4) === 0 ? 0x10000 : 128)) + text.slice(at);
    case 3: return lines.toSpliced(line, 1).join("\n");
    case 4: return lines.toSpliced(line, 0, lines[below(random, lines.length)]!).join("\n");
    case 5: return lines.toSpliced(line, 1, " ".repeat(below(random, 4)) + lines[line]!.trimStart()).join("\n");
    case 6: return replaceWord(random, text, TOKENS[below(random, TOKENS.length)]!);
    case 7: return replaceWord(random, text, text.match(/[\w./*-]+/g)?.[below(random, 20)] ?? "x");
    case 8: return text + "---\n" + GOOD[PATHS[below(random, PATHS.length)]!]!;
    case 9: return text.slice(0, at) + TOKENS[below(random, TOKENS.length)]!.repeat(1 + below(random, below(random, 8) === 0 ? 200 : 8)) + text.slice(at);
    case 10: return text.slice(at) + text.slice(0, at);
    default: return text.slice(0, at) + TOKENS[below(random, TOKENS.length)]! + text.slice(at);
  }
}

function replaceWord(random: Random, text: string, word: string): string {
  const words = [...text.matchAll(/[\w./*-]+/g)];
  const chosen = words[below(random, words.length)];
  return chosen === undefined ? word : text.slice(0, chosen.index) + word + text.slice(chosen.index + chosen[0].length);
}
