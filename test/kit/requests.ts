// Certificate requests for tests: good ones, and ones written to be refused.

import { generateKeyPairSync, type KeyObject } from "node:crypto";
import { signatureAlgorithmOf, signDer } from "../../src/identity/x509-crypto.ts";
import { contextTag, encode, encodeOid, sequence, TAG, unsignedInteger } from "../../src/wire/x509/der.ts";
import { OID } from "../../src/wire/x509/oids.ts";
import { encodeRequest } from "../../src/wire/x509/request.ts";
import { sanExtension, spkiOf, uriName, WEB } from "./certificates.ts";

export interface RequestForgery {
  readonly key?: KeyObject;
  /** The public key put inside; that of `key` by default. */
  readonly spkiDer?: Uint8Array;
  readonly version?: number;
  readonly subjectDer?: Uint8Array;
  readonly extensions?: readonly Uint8Array[];
  /** Whole attributes, in place of the extension request. */
  readonly attributes?: readonly Uint8Array[];
  readonly signatureAlgorithm?: string;
}

export const extensionRequest = (...extensions: readonly Uint8Array[]): Uint8Array =>
  sequence(encodeOid(OID.extensionRequest), encode(TAG.set, sequence(...extensions)));

/** @returns DER. */
export function forgeRequest(forgery: RequestForgery = {}): Uint8Array {
  const key = forgery.key ?? generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey;
  const signatureAlgorithm = forgery.signatureAlgorithm ?? signatureAlgorithmOf(key)!;
  const attributes = forgery.attributes ?? [extensionRequest(...(forgery.extensions ?? [sanExtension(uriName(WEB))]))];
  const infoDer = sequence(
    unsignedInteger(Uint8Array.of(forgery.version ?? 0)),
    forgery.subjectDer ?? sequence(),
    forgery.spkiDer ?? spkiOf(key),
    encode(contextTag(0, true), ...attributes),
  );
  return encodeRequest({ infoDer, signatureAlgorithm, signature: signDer({ signatureAlgorithm, key, tbsDer: infoDer }) });
}
