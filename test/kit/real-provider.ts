// An OpenID provider that we did not write (npm's oidc-provider, which is certified as one), on loopback, with its own pages for login and
// consent. Users are whoever logs in; alice is an admin.

import { createServer } from "node:http";
import { exportJWK, generateKeyPair } from "jose";
import { Provider } from "oidc-provider";

export interface RealProviderOptions {
  readonly redirectUris: readonly string[];
  readonly clientAuthentication?: "client_secret_basic" | "client_secret_post";
  /** As the specification has it, ID tokens of this flow hold little, and the rest is had from the userinfo endpoint. */
  readonly claimsInIdToken?: boolean;
  readonly idTokenLifeS?: number;
  readonly algorithm?: "RS256" | "ES256" | "EdDSA";
}

export interface RealProvider extends AsyncDisposable {
  readonly issuer: string;
  /** What it was asked, as `METHOD /path`. */
  readonly asked: string[];
}

export const CLIENT = { clientId: "shop", clientSecret: "s3cret with & and :" } as const;
const HOUR_S = 3600;

export async function startRealProvider(options: RealProviderOptions): Promise<RealProvider> {
  const { algorithm = "ES256" } = options;
  const asked: string[] = [];
  const handler = Promise.withResolvers<ReturnType<Provider["callback"]>>();
  const server = createServer((request, response) => {
    asked.push(`${request.method} ${request.url?.split("?", 1)[0]}`);
    void handler.promise.then((handle) => handle(request, response));
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("no port");
  const issuer = `http://127.0.0.1:${address.port}`;
  const { privateKey } = await generateKeyPair(algorithm, { extractable: true });
  const provider = new Provider(issuer, {
    clients: [{
      client_id: CLIENT.clientId, client_secret: CLIENT.clientSecret, redirect_uris: options.redirectUris, grant_types: ["authorization_code", "refresh_token"], id_token_signed_response_alg: algorithm,
      token_endpoint_auth_method: options.clientAuthentication ?? "client_secret_basic",
    }],
    clientAuthMethods: [options.clientAuthentication ?? "client_secret_basic"],
    jwks: { keys: [{ ...(await exportJWK(privateKey)), kid: "test", alg: algorithm, use: "sig" }] },
    enabledJWA: { idTokenSigningAlgValues: [algorithm] },
    cookies: { keys: ["a key of the provider"] },
    claims: { openid: ["sub"], email: ["email"], groups: ["groups"] },
    conformIdTokenClaims: options.claimsInIdToken !== true,
    findAccount: (_context: unknown, id: string) => ({ accountId: id, claims: () => ({ sub: id, email: `${id}@shop.example`, groups: id === "alice" ? ["staff", "admins"] : ["staff"] }) }),
    issueRefreshToken: () => true,
    ttl: { IdToken: options.idTokenLifeS ?? HOUR_S, AccessToken: HOUR_S, AuthorizationCode: 60, RefreshToken: 24 * HOUR_S, Interaction: HOUR_S, Session: 24 * HOUR_S, Grant: 24 * HOUR_S },
  });
  handler.resolve(provider.callback());
  return {
    issuer, asked,
    [Symbol.asyncDispose]: () => new Promise<void>((done) => {
      server.close(() => done());
      server.closeAllConnections();
    }),
  };
}
