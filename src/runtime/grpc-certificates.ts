// Certificates from a CA on another machine, as the settings name it.

import { existsSync } from "node:fs";
import { GrpcCertificateSource } from "../identity/grpc-certificate-source.ts";
import type { Settings } from "./settings.ts";

/** @throws when --ca-address is not set: the settings' own check requires it where it matters. */
export function grpcCertificates(settings: Settings): GrpcCertificateSource {
  if (settings.caAddress === null) throw new Error("no --ca-address");
  const { host, port } = settings.caAddress;
  return new GrpcCertificateSource({
    address: host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`,
    serverName: settings.caHostname,
    rootCaPath: settings.caRoot === "SYSTEM" ? null : settings.caRoot,
    token: tokenOf(settings.authToken),
    clusterId: settings.clusterId,
    headers: {},
    impersonate: true,
  });
}

/** As the reference reads AUTH_TOKEN: a file when there is one of that name, else the token itself. */
function tokenOf(setting: string | null) {
  if (setting === null) return { kind: "none" as const };
  return setting.startsWith("/") || existsSync(setting) ? { kind: "file" as const, path: setting } : { kind: "literal" as const, value: setting };
}
