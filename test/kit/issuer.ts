// An issuer of tokens for tests: real keys, a fake network and a clock that moves when told.

import { exportJWK, generateKeyPair, type JWK, SignJWT, type CryptoKey } from "jose";
import type { Clock } from "../../src/core/ports.ts";
import { err, ok, type Result } from "../../src/core/result.ts";
import type { FetchPort, IssuerRequest, IssuerResponse } from "../../src/identity/jwt/fetch-port.ts";

export const ISSUER = "https://issuer.example";
/** Seconds since 1970 at which the tests' clock starts. */
export const NOW_S = 1_700_000_000;

export class FakeClock implements Clock {
  ms = 0;

  monotonicMs(): number {
    return this.ms;
  }

  wallMs(): number {
    return NOW_S * 1000 + this.ms;
  }
}

export interface TestKey {
  readonly kid: string;
  readonly alg: string;
  readonly privateKey: CryptoKey;
  /** Public, with kid and alg. */
  readonly jwk: JWK;
}

export async function testKey(kid: string, alg = "ES256"): Promise<TestKey> {
  const { privateKey, publicKey } = await generateKeyPair(alg, { extractable: true });
  return { kid, alg, privateKey, jwk: { ...(await exportJWK(publicKey)), kid, alg } };
}

export const keySet = (...keys: readonly TestKey[]): string => JSON.stringify({ keys: keys.map(({ jwk }) => jwk) });

/** Valid for an hour from NOW_S unless told otherwise; undefined leaves a claim out. */
export function sign(key: TestKey, claims: Readonly<Record<string, unknown>> = {}, header: Readonly<Record<string, unknown>> = {}): Promise<string> {
  const payload = { iss: ISSUER, sub: "bob", iat: NOW_S, exp: NOW_S + 3600, ...claims };
  return new SignJWT(payload).setProtectedHeader({ alg: key.alg, kid: key.kid, ...header }).sign(key.privateKey);
}

/** Answers by URL, counts what it is asked. A URL that it does not have cannot be reached. */
export class FakeNetwork {
  readonly asked: IssuerRequest[] = [];
  readonly #answers = new Map<string, () => Result<IssuerResponse, string> | Promise<Result<IssuerResponse, string>>>();

  readonly fetch: FetchPort = async (request) => {
    this.asked.push(request);
    const answer = this.#answers.get(request.url);
    return answer === undefined ? err(`${request.url}: connection refused`) : await answer();
  };

  answer(url: string, body: string, fields: Partial<IssuerResponse> = {}): void {
    this.#answers.set(url, () => ok({ status: 200, location: null, cacheControl: null, body, ...fields }));
  }

  /** Holds the answer back until `release` is called. */
  hold(url: string, body: string): { readonly release: () => void } {
    const held = Promise.withResolvers<Result<IssuerResponse, string>>();
    this.#answers.set(url, () => held.promise);
    return { release: () => held.resolve(ok({ status: 200, location: null, cacheControl: null, body })) };
  }

  down(url: string): void {
    this.#answers.delete(url);
  }

  count(url: string): number {
    return this.asked.filter((request) => request.url === url).length;
  }
}
