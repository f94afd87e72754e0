// Who clients of requests are, by tokens and by logins: the caches of one data thread together, holding no more than what the
// configuration names.

import type { Clock, Random } from "../../core/ports.ts";
import { IntrospectionCache } from "../../identity/jwt/introspection.ts";
import type { FetchPort } from "../../identity/jwt/fetch-port.ts";
import { isKeyed, JwksCache, type JwksStatus } from "../../identity/jwt/jwks-cache.ts";
import { TokenVerifier } from "../../identity/jwt/token-verifier.ts";
import { LoginService } from "../../identity/oidc/login-service.ts";
import type { L7Store } from "../../mesh/l7/l7-store.ts";
import { loginRule } from "../../policy/http/login-token.ts";

export class IdentityChecks {
  readonly tokens: TokenVerifier;
  readonly logins: LoginService;
  readonly #keys: JwksCache;
  readonly #introspection: IntrospectionCache;

  constructor(world: { readonly fetch: FetchPort; readonly clock: Clock; readonly random: Random }) {
    this.#keys = new JwksCache(world);
    this.#introspection = new IntrospectionCache(world);
    this.tokens = new TokenVerifier({ keys: this.#keys, introspection: this.#introspection, clock: world.clock });
    this.logins = new LoginService({ ...world, verifier: this.tokens });
  }

  /** Issuers and providers that are named no more are forgotten. */
  retain(l7: Pick<L7Store, "authentications" | "logins">): void {
    const policies = [...l7.logins()];
    const rules = [...l7.authentications()].flatMap(({ rules: all }) => all);
    this.#keys.retain([...rules, ...policies.map((policy) => loginRule(policy).rule)].filter(isKeyed));
    this.logins.retain(policies);
  }

  /** Once a second or so. */
  tick(): void {
    void this.#keys.refreshDue();
  }

  /** What is known of the issuers whose keys were wanted. */
  issuers(): readonly JwksStatus[] {
    return this.#keys.status();
  }

  destroy(): void {
    this.logins.destroy();
    this.#keys.destroy();
    this.#introspection.destroy();
  }
}
