// Calls to a provider's token and userinfo endpoints: RFC 6749, sections 4.1.3 and 6, OpenID Connect Core, section 5.3. One POST or GET
// each, no redirect is followed: it would carry the code and our secret elsewhere.

import { err, ok, type Result } from "../../core/result.ts";
import type { LoginPolicy } from "../../mesh/l7/access.ts";
import type { JsonObject } from "../../policy/http/claims.ts";
import type { LoginFault } from "../../policy/http/login-port.ts";
import { basicAuthorization } from "../jwt/basic-authorization.ts";
import type { FetchPort, IssuerRequest } from "../jwt/fetch-port.ts";
import { isRecord } from "../jwt/key-set.ts";
import { PROVIDER_TIMEOUT_MS, TOKEN_ANSWER_BYTES_MAX, TOKEN_LIFE_MS_MAX, USER_INFO_BYTES_MAX } from "./limits.ts";
import type { Provider } from "./provider-cache.ts";

export interface TokenAnswer {
  readonly accessToken: string;
  readonly idToken: string | null;
  readonly refreshToken: string | null;
  /** Null when it does not say. */
  readonly lifeMs: number | null;
}

const refused = (detail: string): { readonly ok: false; readonly error: LoginFault } => err({ kind: "refused", detail });
const unreachable = (detail: string): { readonly ok: false; readonly error: LoginFault } => err({ kind: "unreachable", detail });

/** What a provider says of a failure is shown, cut to this. */
const ERROR_CHARS_MAX = 300;

export async function askForTokens(
  fetch: FetchPort, provider: Provider, policy: LoginPolicy, { grant, signal }: { readonly grant: Readonly<Record<string, string>>; readonly signal: AbortSignal },
): Promise<Result<TokenAnswer, LoginFault>> {
  const { tokenEndpoint: url, clientAuthentication } = provider;
  const { clientId, clientSecret } = policy;
  const form = clientAuthentication === "post" ? { ...grant, client_id: clientId, client_secret: clientSecret } : grant;
  const answer = await fetch({
    method: "POST", url, body: new URLSearchParams(form).toString(), timeoutMs: PROVIDER_TIMEOUT_MS, bodyBytesMax: TOKEN_ANSWER_BYTES_MAX, publicOnly: isElsewhere(provider, url), signal,
    headers: {
      accept: "application/json", "content-type": "application/x-www-form-urlencoded",
      ...(clientAuthentication === "basic" ? { authorization: basicAuthorization(clientId, clientSecret) } : {}),
    },
  });
  if (!answer.ok) return unreachable(answer.error);
  const { status, body } = answer.value;
  const document = readJson(body);
  if (status === 429 || status >= 500) return unreachable(`${url} answered ${status}`);
  if (status !== 200) return refused(`${url} answered ${status}${saidIn(document)}, wanted 200`);
  return readTokens(url, document);
}

/** Claims about the user whose token it is. @param subject whose they must be. */
export async function askForUserInfo(
  fetch: FetchPort, provider: Provider, { accessToken, subject, signal }: { readonly accessToken: string; readonly subject: string; readonly signal: AbortSignal },
): Promise<Result<JsonObject, LoginFault>> {
  const { userInfoEndpoint: url, issuer } = provider;
  if (url === null) return refused(`${issuer} has no userinfo endpoint, and the policy asks for it`);
  const request: IssuerRequest = {
    method: "GET", url, body: null, headers: { accept: "application/json", authorization: `Bearer ${accessToken}` }, timeoutMs: PROVIDER_TIMEOUT_MS, bodyBytesMax: USER_INFO_BYTES_MAX,
    publicOnly: isElsewhere(provider, url), signal,
  };
  const answer = await fetch(request);
  if (!answer.ok) return unreachable(answer.error);
  const { status, body } = answer.value;
  if (status === 429 || status >= 500) return unreachable(`${url} answered ${status}`);
  const document = readJson(body);
  if (status !== 200) return refused(`${url} answered ${status}, wanted 200`);
  if (!isRecord(document)) return refused(`${url} answered something that is no JSON object`);
  if (document["sub"] !== subject) return refused(`${url} answered about ${JSON.stringify(document["sub"])}, asked was ${JSON.stringify(subject)}`);
  return ok(document as JsonObject);
}

/** The operator wrote the issuer's address; another host was chosen by the document. */
function isElsewhere({ issuer }: Provider, url: string): boolean {
  return new URL(url).host !== new URL(issuer).host;
}

function readTokens(url: string, document: unknown): Result<TokenAnswer, LoginFault> {
  if (!isRecord(document)) return refused(`${url} answered something that is no JSON object`);
  const { access_token: accessToken, token_type: type, id_token: idToken, refresh_token: refreshToken, expires_in: expiresIn } = document;
  if (typeof accessToken !== "string" || accessToken === "") return refused(`${url} answered without an access token`);
  if (typeof type !== "string" || type.toLowerCase() !== "bearer") return refused(`${url} answered with tokens of the type ${JSON.stringify(type)}, wanted Bearer`);
  // Some providers write the number as text.
  const seconds = typeof expiresIn === "string" && /^\d{1,9}$/.test(expiresIn) ? Number(expiresIn) : expiresIn;
  return ok({
    accessToken, idToken: typeof idToken === "string" ? idToken : null, refreshToken: typeof refreshToken === "string" && refreshToken !== "" ? refreshToken : null,
    lifeMs: typeof seconds === "number" && seconds > 0 ? Math.min(seconds * 1000, TOKEN_LIFE_MS_MAX) : null,
  });
}

function readJson(body: string): unknown {
  try {
    return JSON.parse(body);
  } catch {
    return null;
  }
}

function saidIn(document: unknown): string {
  if (!isRecord(document) || typeof document["error"] !== "string") return "";
  const { error, error_description: description } = document;
  return ` ${JSON.stringify(`${error}${typeof description === "string" ? `: ${description}` : ""}`.slice(0, ERROR_CHARS_MAX))}`;
}
