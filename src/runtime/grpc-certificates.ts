// Certificates from a CA on another machine, as the settings name it.

import { GrpcCertificateSource } from "../identity/grpc-certificate-source.ts";
import { authToken, prefixedHeaders, rootCa } from "./control-plane-settings.ts";
import { hostPort } from "./setting-types.ts";
import type { Settings } from "./settings.ts";

/** @throws when --ca-address is not set: the settings' own check requires it where it matters. */
export function grpcCertificates(settings: Settings): GrpcCertificateSource {
  if (settings.caAddress === null) throw new Error("no --ca-address");
  return new GrpcCertificateSource({
    address: hostPort.format(settings.caAddress),
    serverName: settings.caHostname,
    rootCaPath: rootCa(settings.caRoot),
    token: authToken(settings.authToken),
    clusterId: settings.clusterId,
    headers: prefixedHeaders(process.env, "CA_HEADER_"),
    impersonate: true,
  });
}
