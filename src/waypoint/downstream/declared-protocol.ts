// What the port of a service is declared to carry: `appProtocol`, else the first part of the port's name, as Kubernetes and Istio read them.

import type { Service } from "../../mesh/records.ts";

/** `unknown`: nothing is declared, and the client's first bytes tell. */
export type DeclaredProtocol = "http" | "tcp" | "unknown";

const HTTP = /^(?:http|http2|grpc|grpc-web|h2c|https?-?proxy|kubernetes\.io\/(?:h2c|wss?))(?:-|$)/i;
const HTTP2 = /^(?:http2|grpc|grpc-web|h2c|kubernetes\.io\/h2c)(?:-|$)/i;
/** Their bytes are nobody's to look at: TLS of their own, or protocols in which the server speaks first. */
const TCP = /^(?:tcp|tls|https|mongo|mysql|redis|udp|kubernetes\.io\/wss)(?:-|$)/i;

export function declaredProtocol(service: Service, port: number): DeclaredProtocol {
  const text = declaration(service, port);
  if (TCP.test(text)) return "tcp";
  return HTTP.test(text) ? "http" : "unknown";
}

/** Servers of this port speak HTTP/2 with prior knowledge. */
export function declaresHttp2(service: Service, port: number): boolean {
  return HTTP2.test(declaration(service, port));
}

/** Its clients speak gRPC-Web, or gRPC; its servers gRPC. */
export function declaresGrpcWeb(service: Service, port: number): boolean {
  return /^grpc-web(?:-|$)/i.test(declaration(service, port));
}

function declaration(service: Service, port: number): string {
  const declared = service.ports.find(({ servicePort }) => servicePort === port);
  return declared === undefined ? "" : declared.appProtocol === "" ? declared.name : declared.appProtocol;
}
