// Dex as a process, with users and a client of its own in memory. DEX_BIN names its program. It listens in the box of the test alone.

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { needsBinary, type SkipReason } from "./skip.ts";
import { until } from "./until.ts";

const PORT = 5556;
export const needsDex: SkipReason = needsBinary("DEX_BIN");

export const DEX_ISSUER = `http://127.0.0.1:${PORT}/dex`;
export const DEX_CLIENT = { clientId: "shop", clientSecret: "s3cret with & and :" } as const;
export const DEX_PASSWORD = "open sesame";

export interface DexOptions {
  readonly redirectUris: readonly string[];
  /** By the part of the address before the @. */
  readonly users: Readonly<Record<string, readonly string[]>>;
  readonly algorithm?: "RS256" | "ES256";
}

export class Dex implements AsyncDisposable {
  readonly #directory = mkdtempSync(join(tmpdir(), "weft-dex-"));
  readonly #logPath = join(this.#directory, "log");
  readonly #options: DexOptions;
  #process: Bun.Subprocess | null = null;

  private constructor(options: DexOptions) {
    this.#options = options;
  }

  static async start(options: DexOptions): Promise<Dex> {
    const dex = new Dex(options);
    await dex.start();
    return dex;
  }

  get log(): string {
    return readFileSync(this.#logPath, "utf8");
  }

  /** With an empty memory: it knows nothing of what it gave out before, and has new keys. */
  async start(): Promise<void> {
    const { redirectUris, users, algorithm = "RS256" } = this.#options;
    const hash = await Bun.password.hash(DEX_PASSWORD, { algorithm: "bcrypt", cost: 10 });
    const config = {
      issuer: DEX_ISSUER,
      storage: { type: "memory" },
      web: { http: `127.0.0.1:${PORT}` },
      oauth2: { passwordConnector: "local" },
      signer: { type: "local", config: { keysRotationPeriod: "6h", algorithm } },
      staticClients: [{ id: DEX_CLIENT.clientId, secret: DEX_CLIENT.clientSecret, name: "Shop", redirectURIs: redirectUris }],
      enablePasswordDB: true,
      staticPasswords: Object.entries(users).map(([name, groups]) => ({ email: `${name}@shop.example`, hash, username: name, userID: `id-${name}`, groups })),
    };
    const path = join(this.#directory, "config.json");
    writeFileSync(path, JSON.stringify(config));
    this.#process = Bun.spawn([process.env["DEX_BIN"]!, "serve", path], { stdout: "ignore", stderr: Bun.file(this.#logPath) });
    await until(() => `Dex to answer; its log:\n${this.log}`, 30_000, async () => (await fetch(`${DEX_ISSUER}/.well-known/openid-configuration`).catch(() => null))?.ok === true);
  }

  async stop(): Promise<void> {
    this.#process?.kill();
    await this.#process?.exited;
    this.#process = null;
  }

  /** A token for a program, without a browser (RFC 6749, section 4.3). */
  async token(user: string): Promise<string> {
    const { clientId, clientSecret } = DEX_CLIENT;
    const answer = await fetch(`${DEX_ISSUER}/token`, {
      method: "POST", headers: { authorization: `Basic ${btoa(`${clientId}:${encodeURIComponent(clientSecret)}`)}` },
      body: new URLSearchParams({ grant_type: "password", username: `${user}@shop.example`, password: DEX_PASSWORD, scope: "openid email groups" }),
    });
    const body: unknown = await answer.json();
    const token = body !== null && typeof body === "object" && "id_token" in body ? body.id_token : null;
    if (typeof token !== "string") throw new Error(`Dex gave no token: ${answer.status} ${JSON.stringify(body)}`);
    return token;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
    rmSync(this.#directory, { recursive: true, force: true });
  }
}
