// A throw-away CA and two P-256 leaves for the plain TLS tunnels, made with openssl.

import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { must } from "../lib/process.ts";

export interface TunnelCertificates {
  readonly ca: string;
  /** Files with a certificate and its key, for each side. */
  readonly client: string;
  readonly server: string;
}

export function tunnelCertificates(folder: string): TunnelCertificates {
  const file = (name: string): string => join(folder, name);
  const made = { ca: file("ca.pem"), client: file("client.pem"), server: file("server.pem") };
  if (existsSync(made.server)) return made;
  const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc"];
  must(["openssl", "req", "-x509", ...key, "-keyout", file("ca.key"), "-out", made.ca, "-days", "2", "-subj", "/CN=bench ca"]);
  for (const name of ["client", "server"]) {
    must(["openssl", "req", ...key, "-keyout", file(`${name}.key`), "-out", file(`${name}.csr`), "-subj", `/CN=${name}`]);
    must(["openssl", "x509", "-req", "-in", file(`${name}.csr`), "-CA", made.ca, "-CAkey", file("ca.key"), "-CAcreateserial", "-out", file(`${name}.crt`), "-days", "2"]);
    writeFileSync(file(`${name}.pem`), readFileSync(file(`${name}.crt`), "utf8") + readFileSync(file(`${name}.key`), "utf8"), { mode: 0o600 });
  }
  return made;
}
