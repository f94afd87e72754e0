// The certificate request this node sends: a fresh P-256 key, empty subject, one critical URI SAN, as the reference proxy does.

import { generateKeyPairSync } from "node:crypto";
import type { SpiffeId } from "../core/spiffe.ts";
import { OID } from "../wire/x509/oids.ts";
import { writePem } from "../wire/x509/pem.ts";
import { encodeRequest, encodeRequestInfo } from "../wire/x509/request.ts";
import { signDer } from "./x509-crypto.ts";

export interface CertificateRequest {
  readonly csrPem: string;
  /** PKCS#8. */
  readonly privateKeyPem: string;
  readonly spkiDer: Uint8Array;
}

export function createRequest(spiffeId: SpiffeId): CertificateRequest {
  const pair = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const spkiDer = pair.publicKey.export({ type: "spki", format: "der" });
  const infoDer = encodeRequestInfo({ spkiDer, uri: spiffeId });
  const signatureAlgorithm = OID.ecdsaSha256;
  const signature = signDer({ signatureAlgorithm, key: pair.privateKey, tbsDer: infoDer });
  return {
    csrPem: writePem("CERTIFICATE REQUEST", encodeRequest({ infoDer, signatureAlgorithm, signature })),
    privateKeyPem: pair.privateKey.export({ type: "pkcs8", format: "pem" }),
    spkiDer,
  };
}
