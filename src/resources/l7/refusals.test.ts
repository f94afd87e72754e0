// What each kind refuses, and says where and why. The documents are right but for the one thing that is named.

import { describe, expect, test } from "bun:test";
import { errorsOf, evaluate, namespace } from "../test-kit.ts";

const errors = (apiVersion: string, kind: string, spec: string): string => errorsOf(evaluate(`${namespace("shop")}---\napiVersion: ${apiVersion}\nkind: ${kind}\nmetadata: {name: x, namespace: shop}\nspec: ${spec}\n`)).join("\n");

type Case = readonly [what: string, spec: string, expected: string];
function refused(apiVersion: string, kind: string, cases: readonly Case[]): void {
  describe(kind, () => {
    for (const [what, spec, expected] of cases) test(what, () => expect(errors(apiVersion, kind, spec)).toContain(expected));
  });
}

const http = (rule: string): string => `{parentRefs: [{group: "", kind: Service, name: web}], rules: [${rule}]}`;
refused("gateway.networking.k8s.io/v1", "HTTPRoute", [
  ["an unknown field of a rule", http("{match: []}"), "spec.rules[0].match: unknown field; did you mean matches?"],
  ["a method that is none", http("{matches: [{method: get}]}"), 'spec.rules[0].matches[0].method: found "get", expected "GET" or'],
  ["a path that is not in normal form", http("{matches: [{path: {value: /a/../b}}]}"), 'spec.rules[0].matches[0].path.value: found "/a/../b", expected a path without //, /./ and /../'],
  ["a path that is relative", http("{matches: [{path: {type: Exact, value: a}}]}"), "expected a path that begins with /"],
  ["a regex with look-around", http('{matches: [{path: {type: RegularExpression, value: "(?=a)"}}]}'), "expected a regex in RE2 syntax"],
  ["a header regex that is none", http('{matches: [{headers: [{type: RegularExpression, name: a, value: "("}]}]}'), 'spec.rules[0].matches[0].headers[0].value: found "(", expected a regex'],
  ["a header name that is no token", http('{matches: [{headers: [{name: "a b", value: x}]}]}'), 'headers[0].name: found "a b", expected a header name'],
  ["a filter without its field", http("{filters: [{type: URLRewrite}]}"), "spec.rules[0].filters[0].urlRewrite: found no urlRewrite, which a filter of type URLRewrite needs"],
  ["a filter with another's field", http("{filters: [{type: URLRewrite, urlRewrite: {}, requestMirror: {backendRef: {name: a}}}]}"), "filters[0].requestMirror: found requestMirror in a filter of type URLRewrite"],
  ["a filter twice", http("{filters: [{type: URLRewrite, urlRewrite: {}}, {type: URLRewrite, urlRewrite: {}}]}"), "filters[1].type: found URLRewrite twice"],
  ["a redirect beside a rewrite", http("{filters: [{type: URLRewrite, urlRewrite: {}}, {type: RequestRedirect, requestRedirect: {}}]}"), "found a redirect beside a rewrite"],
  ["a redirect beside backends", http("{filters: [{type: RequestRedirect, requestRedirect: {}}], backendRefs: [{name: a, port: 1}]}"), "spec.rules[0].backendRefs: found backends beside a redirect"],
  ["a redirect with another status", http("{filters: [{type: RequestRedirect, requestRedirect: {statusCode: 304}}]}"), "statusCode: found 304, expected 301 or 302 or 303 or 307 or 308"],
  ["a prefix replacement without a prefix", http("{matches: [{path: {type: Exact, value: /a}}], filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /b}}}]}"), "found ReplacePrefixMatch, which needs exactly one match, of type PathPrefix"],
  ["a prefix replacement for two matches", http("{matches: [{}, {}], filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /b}}}]}"), "needs exactly one match"],
  ["a header that frames the message", http("{filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: Content-Length, value: '0'}]}}]}"), "set[0].name: found \"Content-Length\", expected a header that does not frame the message"],
  ["a header value with a line break", http('{filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: a, value: "b\\r\\nc: d"}]}}]}'), "expected a header value: printable ASCII"],
  ["a mirror with percent and fraction", http("{filters: [{type: RequestMirror, requestMirror: {backendRef: {name: a, port: 1}, percent: 1, fraction: {numerator: 1}}}]}"), "found percent beside fraction"],
  ["a fraction above one", http("{filters: [{type: RequestMirror, requestMirror: {backendRef: {name: a, port: 1}, fraction: {numerator: 101}}}]}"), "expected a numerator of at most the denominator"],
  ["an origin that is none", http("{filters: [{type: CORS, cors: {allowOrigins: [shop.example]}}]}"), 'allowOrigins[0]: found "shop.example", expected an origin such as'],
  ["* beside other methods", http('{filters: [{type: CORS, cors: {allowMethods: ["*", GET]}}]}'), "found * beside others"],
  ["a duration without unit", http('{timeouts: {request: "10"}}'), 'spec.rules[0].timeouts.request: found "10", expected a duration such as 500ms'],
  ["a duration that is a number", http("{timeouts: {request: 10}}"), "spec.rules[0].timeouts.request: found 10, expected a duration such as 500ms"],
  ["a backend timeout above the request's", http("{timeouts: {request: 1s, backendRequest: 2s}}"), "timeouts.backendRequest: found 2s, expected at most request, 1s"],
  ["a retry of a good answer", http("{retry: {codes: [200]}}"), "spec.rules[0].retry.codes[0]: found 200, expected at least 400"],
  ["a rule name twice", http("{name: a}, {name: a}"), "spec.rules[1].name: found the rule name a twice"],
  ["a negative weight", http("{backendRefs: [{name: a, port: 1, weight: -1}]}"), "weight: found -1, expected at least 0"],
  ["a permanent cookie without end", http("{sessionPersistence: {cookie: {lifetimeType: Permanent}}}"), "found no absoluteTimeout, which a permanent cookie needs"],
  ["a header for a cookie", http("{sessionPersistence: {header: {name: a}}}"), "found settings of a header, which type: Header needs"],
  ["one parent twice", '{parentRefs: [{group: "", kind: Service, name: a}, {group: "", kind: Service, name: a}]}', "spec.parentRefs[1]: found a twice with the same port and sectionName"],
  ["one parent as a whole and in part", '{parentRefs: [{group: "", kind: Service, name: a}, {group: "", kind: Service, name: a, port: 1}]}', "each of them needs a port or a sectionName"],
]);

refused("gateway.networking.k8s.io/v1", "GRPCRoute", [
  ["an empty method match", "{rules: [{matches: [{method: {}}]}]}", "expected a service, a method or both"],
  ["a service with a slash", "{rules: [{matches: [{method: {service: a/b}}]}]}", 'method.service: found "a/b", expected the name of a gRPC service'],
  ["a filter of HTTP alone", "{rules: [{filters: [{type: URLRewrite, urlRewrite: {}}]}]}", "filters[0].type"],
]);
refused("gateway.networking.k8s.io/v1", "TLSRoute", [
  ["an address as name", "{hostnames: [198.51.100.1], rules: [{backendRefs: [{name: a}]}]}", "expected a host name; TLS names no addresses"],
  ["a rule without backends", "{hostnames: [a.example], rules: [{backendRefs: []}]}", "spec.rules[0].backendRefs"],
]);
refused("gateway.networking.k8s.io/v1", "Gateway", [
  ["a waypoint without HBONE", "{gatewayClassName: weft-waypoint, listeners: [{name: a, port: 80, protocol: HTTP}]}", "found no listener for HBONE on port 15008"],
]);
refused("gateway.networking.k8s.io/v1", "BackendTLSPolicy", [
  ["no authority", '{targetRefs: [{group: "", kind: Service, name: a}], validation: {hostname: a.example}}', "found neither caCertificateRefs nor wellKnownCACertificates"],
  ["a name of another type", '{targetRefs: [{group: "", kind: Service, name: a}], validation: {hostname: a.example, wellKnownCACertificates: System, subjectAltNames: [{type: URI, hostname: a}]}}', "expected hostname for type Hostname, uri for type URI"],
]);
refused("gateway.networking.x-k8s.io/v1alpha1", "XBackendTrafficPolicy", [
  ["a budget above all", '{targetRefs: [{group: "", kind: Service, name: a}], retryConstraint: {budget: {percent: 101}}}', "percent: found 101, expected at most 100"],
  ["an interval too short", '{targetRefs: [{group: "", kind: Service, name: a}], retryConstraint: {budget: {interval: 10ms}}}', "found 10ms, expected at least 1000ms and at most one hour"],
]);

const vs = (rule: string): string => `{hosts: [web], http: [${rule}]}`;
const to = "route: [{destination: {host: web}}]";
refused("networking.istio.io/v1", "VirtualService", [
  ["no action", vs("{match: []}"), "spec.http[0]: found none, expected exactly one of route, redirect, directResponse and delegate"],
  ["two actions", vs(`{${to}, directResponse: {status: 200}}`), "found route and directResponse, expected exactly one"],
  ["a match of two ways", vs(`{match: [{uri: {exact: /a, prefix: /b}}], ${to}}`), "spec.http[0].match[0].uri: found a map, expected exactly one of exact, prefix and regex"],
  ["a bad regex", vs(`{match: [{headers: {a: {regex: "(?!b)"}}}], ${to}}`), "match[0].headers.a.regex"],
  ["an unknown retry condition", vs(`{${to}, retries: {retryOn: "5xx,often"}}`), 'spec.http[0].retries.retryOn: found "often", expected conditions such as 5xx'],
  ["a percentage above 100", vs(`{${to}, fault: {abort: {httpStatus: 500, percentage: {value: 100.5}}}}`), "fault.abort.percentage.value: found 100.5, expected at most 100"],
  ["a fault of two statuses", vs(`{${to}, fault: {abort: {httpStatus: 500, grpcStatus: UNAVAILABLE}}}`), "found httpStatus and grpcStatus, expected one"],
  ["an unknown gRPC status", vs(`{${to}, fault: {abort: {grpcStatus: SOMETIMES}}}`), 'found "SOMETIMES", expected the name of a gRPC status'],
  ["a delay without length", vs(`{${to}, fault: {delay: {percentage: {value: 1}}}}`), "fault.delay: found no fixedDelay"],
  ["a port of 0", vs("{route: [{destination: {host: web, port: {number: 0}}}]}"), "port.number: found 0, expected at least 1"],
  ["a duration that is none", vs(`{${to}, timeout: 5}`), "spec.http[0].timeout: found 5, expected a duration such as 500ms"],
  ["a host header of an answer", vs(`{${to}, headers: {response: {set: {Host: a}}}}`), "expected a header that does not frame the message"],
  ["a header of a request that frames the message", vs(`{${to}, headers: {request: {set: {Content-Length: "1"}}}}`), "expected a header name, and none of a header that frames the message"],
  ["a host that is none", vs(`{${to}, headers: {request: {set: {Host: "a b"}}}}`), 'spec.http[0].headers.request.set.Host: found "a b", expected a host name'],
  ["the same for one destination", vs('{route: [{destination: {host: web}, headers: {request: {set: {":authority": "a:99999"}}}}]}'), 'route[0].headers.request.set[":authority"]: found "a:99999", expected a host name'],
  ["a redirect host with port", vs('{redirect: {authority: "a.example:8443"}}'), "expected a host name without port; give redirect.port"],
]);

refused("networking.istio.io/v1", "DestinationRule", [
  ["no host", "{trafficPolicy: {}}", "spec.host: missing"],
  ["two ways to balance", "{host: web, trafficPolicy: {loadBalancer: {simple: RANDOM, consistentHash: {useSourceIp: true}}}}", "simple: found it beside consistentHash"],
  ["a hash of nothing", "{host: web, trafficPolicy: {loadBalancer: {consistentHash: {}}}}", "found 0 keys, expected one of httpHeaderName"],
  ["weights that are no 100", '{host: web, trafficPolicy: {loadBalancer: {localityLbSetting: {distribute: [{from: a, to: {a: 50}}]}}}}', "found weights that sum to 50, expected 100"],
  ["mutual TLS without a certificate", "{host: web, trafficPolicy: {tls: {mode: MUTUAL}}}", "found MUTUAL without credentialName"],
  ["a subset twice", "{host: web, subsets: [{name: a}, {name: a}]}", "spec.subsets[1].name: found the subset a twice"],
  ["a port twice", "{host: web, trafficPolicy: {portLevelSettings: [{port: {number: 1}}, {port: {number: 1}}]}}", "found the port 1 twice"],
  ["an interval of 0", "{host: web, trafficPolicy: {outlierDetection: {interval: 0s}}}", "expected a duration of at least 1ms"],
]);

refused("networking.istio.io/v1", "ServiceEntry", [
  ["no port", "{hosts: [a.example]}", "spec.ports: found no port"],
  ["an upper-case host", "{hosts: [A.example], ports: [{number: 1, name: a}]}", "expected a host name in lower case"],
  ["a name with STATIC", "{hosts: [a.example], ports: [{number: 1, name: a}], resolution: STATIC, endpoints: [{address: b.example}]}", "found the name \"b.example\" with resolution STATIC"],
  ["endpoints with NONE", "{hosts: [a.example], ports: [{number: 1, name: a}], endpoints: [{address: 198.18.0.1}]}", "spec.endpoints: found it with resolution NONE"],
  ["a protocol that is none", "{hosts: [a.example], ports: [{number: 1, name: a, protocol: SMTPS}]}", "expected one of HTTP, HTTPS"],
]);

const jwt = (rule: string): string => `{targetRefs: [{kind: Service, name: web}], jwtRules: [${rule}]}`;
refused("security.istio.io/v1", "RequestAuthentication", [
  ["no issuer", jwt('{jwksUri: "https://a.example"}'), "spec.jwtRules[0].issuer: missing"],
  ["keys given and elsewhere", jwt('{issuer: a, jwks: "{}", jwksUri: "https://a.example"}'), "found jwks and jwksUri, expected one of them"],
  ["keys that are no JSON", jwt('{issuer: a, jwks: "{"}'), "found text that is not JSON"],
  ["keys that are none", jwt(`{issuer: a, jwks: '{"keys": []}'}`), "expected a JSON Web Key Set"],
  ["a symmetric key", jwt(`{issuer: a, jwks: '{"keys": [{"kty": "oct", "k": "AA"}]}'}`), "found a symmetric key"],
  ["a file as URL", jwt('{issuer: a, jwksUri: "file:///etc/passwd"}'), "expected an http:// or https:// URL"],
  ["nowhere to find keys", jwt("{issuer: somebody}"), 'the issuer "somebody" is no URL at which keys could be discovered'],
]);
const at = 'targetRefs: [{kind: Service, name: web}]';
refused("security.istio.io/v1", "AuthorizationPolicy", [
  ["a star in the middle of a path", `{${at}, action: DENY, rules: [{to: [{operation: {paths: ["/a/*/b"]}}]}]}`, 'paths[0]: found "/a/*/b", expected an exact path, prefix*'],
  ["a template with part of a segment", `{${at}, action: DENY, rules: [{to: [{operation: {paths: ["/a{*}"]}}]}]}`, "template of whole segments"],
  ["a template with ** before another", `{${at}, action: DENY, rules: [{to: [{operation: {paths: ["/{**}/{*}"]}}]}]}`, "template of whole segments"],
  ["a method with stars at both ends", `{${at}, rules: [{to: [{operation: {methods: ["*E*"]}}]}]}`, "methods[0]"],
  ["an address that is none", `{${at}, rules: [{when: [{key: remote.ip, values: [here]}]}]}`, 'values[0]: found "here", expected an IP address or a CIDR'],
]);

refused("telemetry.istio.io/v1", "Telemetry", [
  ["a filter beyond what is known", '{accessLogging: [{filter: {expression: "request.path.matches(\'/a+\')"}}]}', "and not matches of a text"],
  ["a tag of two kinds", "{tracing: [{customTags: {a: {literal: {value: b}, header: {name: c}}}}]}", "expected exactly one of literal"],
  ["a sampling above 100", "{tracing: [{randomSamplingPercentage: 101}]}", "found 101, expected at most 100"],
  ["a label without value", "{metrics: [{overrides: [{tagOverrides: {a: {operation: UPSERT}}}]}]}", "found no value, which UPSERT needs"],
]);

const tp = (fields: string): string => `{targetRefs: [{kind: Service, name: web}], ${fields}}`;
refused("weft.dev/v1alpha1", "TrafficPolicy", [
  ["no target", "{targetRefs: []}", "spec.targetRefs"],
  ["a hash that is missing", tp("balancing: {type: Maglev}"), "found no hash, which Maglev needs"],
  ["a hash for nothing", tp("balancing: {type: Random, hash: {sourceIp: {}}}"), "found hash beside type Random"],
  ["two probes", tp("healthCheck: {tcp: {}, grpc: {}}"), "expected exactly one of http, grpc and tcp"],
  ["a probe longer than its interval", tp("healthCheck: {tcp: {}, interval: 1s, timeout: 2s}"), "found 2s, expected at most interval, 1s"],
  ["a limit of nothing", tp("rateLimits: {local: [{name: a, requests: 0, per: 1s}]}"), "requests: found 0, expected at least 1"],
  ["a limit without time", tp("rateLimits: {local: [{name: a, requests: 1, per: 0s}]}"), "expected a duration of at least 1ms"],
  ["a name twice", tp("rateLimits: {local: [{name: a, requests: 1, per: 1s}, {name: a, requests: 2, per: 1s}]}"), "found the name a twice"],
  ["two faults in one", tp("faults: [{delay: 1s, reset: {}}]"), "expected exactly one of delay, abort, reset and bandwidth"],
  ["a timeout that is a number", tp("timeouts: {request: 10}"), "spec.timeouts.request: found 10, expected a duration such as 500ms"],
  ["a smallest limit above the largest", tp("adaptiveConcurrency: {minimum: 10, maximum: 5}"), "found 10, expected at most maximum, 5"],
  ["priorities of no header", tp("adaptiveConcurrency: {priorities: [a]}"), "found none; a request names its priority in a header"],
  ["too many attempts", tp("retry: {attempts: 100}"), "attempts: found 100, expected at most 10"],
]);
refused("weft.dev/v1alpha1", "LoginPolicy", [
  ["a session without end", '{targetRefs: [{kind: Service, name: web}], issuer: "https://a.example", clientId: a, clientSecretRef: {name: s}, cookie: {keysRef: {name: s}, lifetime: 169h}}', "found 169h, expected at most 168h"],
]);
refused("weft.dev/v1alpha1", "MeshConfig", [
  ["a provider of two kinds", "{extensionProviders: [{name: a, prometheus: {}, envoyFileAccessLog: {}}]}", "expected exactly one of envoyExtAuthzGrpc"],
  ["a port that is none", '{extensionProviders: [{name: a, envoyExtAuthzGrpc: {service: a.shop.svc, port: "65536"}}]}', "envoyExtAuthzGrpc.port: found \"65536\", expected a port from 1 to 65535"],
  ["a log file", "{extensionProviders: [{name: a, envoyFileAccessLog: {path: /var/log/a}}]}", "expected /dev/stdout"],
  ["a default that is no provider", "{defaultProviders: {tracing: [nobody]}}", 'found "nobody", which none of extensionProviders is called'],
]);

test("Secret: no value is shown", () => {
  const told = errorsOf(evaluate(`${namespace("shop")}---\napiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: shop}\ndata: {key: "hunter2!"}\nstringData: {n: 42}\ntype: [hunter2]\n`)).join("\n");
  expect(told).toContain("data.key: found a value that is not shown, expected base64");
  expect(told).toContain("stringData.n: found a value that is not shown, expected text");
  expect(told).not.toMatch(/hunter2|42,/);
});
