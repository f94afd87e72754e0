// docs/quickstart-waypoint.md: its YAML is a configuration without a remark, its program makes keys and a token that go together, and what
// the page says of requests is what they get.

import { beforeAll, describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { WEB } from "../../../test/kit/http-records.ts";
import { LoginGate } from "../../../test/kit/login-gate.ts";
import { namespacedName } from "../../core/brand.ts";
import { seededRandom, systemClock } from "../../core/ports.ts";
import { EMPTY_L7_SNAPSHOT } from "../../mesh/l7/delta.ts";
import { L7Store } from "../../mesh/l7/l7-store.ts";
import { REASON_HEADER } from "../../policy/http/reason-codes.ts";
import { diffL7 } from "../../resources/l7/l7-delta.ts";
import { describeDiagnostic, documents, evaluate } from "../../resources/test-kit.ts";
import { LoginService } from "../oidc/login-service.ts";
import type { FetchPort } from "./fetch-port.ts";
import { IntrospectionCache } from "./introspection.ts";
import { JwksCache } from "./jwks-cache.ts";
import { TokenVerifier } from "./token-verifier.ts";

const ROOT = join(import.meta.dir, "../../..");
const doc = readFileSync(join(ROOT, "docs/quickstart-waypoint.md"), "utf8");
const blocks = (language: string): string[] => [...doc.matchAll(new RegExp(`\`\`\`${language}\n([\\s\\S]*?)\`\`\``, "g"))].map((match) => match[1]!);
const yaml = blocks("yaml");
const options = { node: "a" };

describe("docs/quickstart-waypoint.md", () => {
  test("its YAML is a configuration without a single remark, on one machine", () => {
    const evaluation = evaluate(documents(...yaml), options);
    expect(evaluation.diagnostics.map(describeDiagnostic)).toEqual([]);
    expect(evaluation.resourceCount).toBe(doc.match(/^kind: /gm)!.length);
    expect(evaluation.localWorkloads.length).toBe(4);
  });

  test("nine of ten requests go to the first version, and each subject has a limit", () => {
    const { l7 } = evaluate(documents(...yaml), options);
    const [route] = [...l7.routes.values()];
    if (route?.rules.protocol !== "http") throw new Error("no route of HTTP");
    expect(route.rules.rules.flatMap(({ backends }) => backends.map(({ weight }) => weight))).toEqual([90, 10]);
    expect([...l7.trafficPolicies.values()].flat().map(({ localRateLimits }) => localRateLimits)).toMatchObject([[{ requests: 10, perMs: 1000, burst: 100 }]]);
  });

  describe("requests", () => {
    let token = "";
    let ofKeys: (jwks: string) => LoginGate;
    let printed = "";

    beforeAll(() => {
      // In the repository's root, where its import is found.
      const run = Bun.spawnSync([process.execPath, "-e", blocks("js").join("\n")], { cwd: ROOT });
      [printed = "", token = ""] = run.stdout.toString().trim().split("\n");
      const nobody: FetchPort = () => { throw new Error("nobody is asked"); };
      ofKeys = (jwks) => {
        const evaluation = evaluate(documents(...yaml).replace(/^ *\{"keys":.*$/m, `      ${jwks}`), options);
        const store = new L7Store();
        store.apply(diffL7(EMPTY_L7_SNAPSHOT, evaluation.l7));
        const verifier = new TokenVerifier({ keys: new JwksCache({ fetch: nobody, clock: systemClock, random: seededRandom(1) }), introspection: new IntrospectionCache({ fetch: nobody, clock: systemClock }), clock: systemClock });
        return new LoginGate({ service: new LoginService({ fetch: nobody, clock: systemClock, verifier }), tokens: verifier, access: store.access(WEB, namespacedName("shop", "waypoint")) });
      };
    });
    const ask = async (gate: LoginGate, headers: Readonly<Record<string, string>>) => {
      const answer = await gate.fetch(new Request("http://web.shop.svc.cluster.local/", { headers }));
      return [answer.status, answer.headers.get(REASON_HEADER)];
    };

    test("without a token: 403", async () => expect(await ask(ofKeys(printed), {})).toEqual([403, "access_not_allowed"]));
    test("with the token that the page's program prints: 200", async () => expect(await ask(ofKeys(printed), { authorization: `Bearer ${token}` })).toEqual([200, null]));
    test("with a token of another key: 401", async () => {
      const written = /^ *(\{"keys":.*)$/m.exec(doc)![1]!;
      expect(await ask(ofKeys(written), { authorization: `Bearer ${token}` })).toEqual([401, "token_signature"]);
    });
  });
});
