// The machine's own certificate authorities, where its distribution keeps them. Read once: a change is seen by the next process.

import { existsSync, readFileSync } from "node:fs";

/** Debian, Ubuntu, Alpine, Arch; Fedora, RHEL; openSUSE. */
const BUNDLES = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"] as const;

let known: { readonly pem: string | null } | null = null;

/**
 * PEM; null when the machine has none, and those built into the runtime have to do. `SSL_CERT_FILE` names another file, as for OpenSSL.
 * Throws when that one cannot be used: trust that somebody chose is not replaced by another.
 */
export function systemRoots(): string | null {
  known ??= { pem: read() };
  return known.pem;
}

function read(): string | null {
  const named = process.env["SSL_CERT_FILE"];
  if (named !== undefined && named !== "") {
    const text = readFileSync(named, "utf8");
    if (!holdsCertificates(text)) throw new Error(`SSL_CERT_FILE: found no certificate in ${named}`);
    return text;
  }
  const path = BUNDLES.find((one) => existsSync(one));
  if (path === undefined) return null;
  const text = readFileSync(path, "utf8");
  return holdsCertificates(text) ? text : null;
}

const holdsCertificates = (text: string): boolean => text.includes("-----BEGIN CERTIFICATE-----");
