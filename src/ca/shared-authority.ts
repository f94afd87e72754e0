// One CA for several replicas of a control plane: its keys live in a Kubernetes Secret, and every replica works with a copy. Whoever
// renews something writes it back if nobody else has in the meantime, else takes what the other wrote. A Secret `cacerts`, as
// Istio knows it, is a CA given by the operator and comes first.

import { err, ok, type Result } from "../core/result.ts";
import { openPrivateDirectory } from "../identity/private-directory.ts";
import type { PlugInCa } from "./authority-store.ts";
import { type CertificateAuthority, type CertificateAuthorityOptions, openCertificateAuthority } from "./certificate-authority.ts";

/** Istio's name for a CA that the operator brings. */
export const PLUG_IN_SECRET = "cacerts";
export const OWN_SECRET = "weft-ca";
const AUTHORITY_KEY = "authority.json";
/** How often another replica's, or the operator's, change is looked for. */
const LOOK_MS = 60_000;
/** Replicas that all start at once make one CA between them; each look loses to one other at most. */
const ATTEMPTS_MAX = 5;

export interface SecretContent {
  /** Decoded. */
  readonly data: Readonly<Record<string, string>>;
  readonly resourceVersion: string;
}

/** Secrets of one namespace. Errors are words about what was asked and seen. */
export interface SecretStore {
  read(name: string): Promise<Result<SecretContent | null, string>>;
  create(name: string, data: Readonly<Record<string, string>>): Promise<Result<"created" | "exists", string>>;
  /** Only if it still has that version. */
  replace(name: string, content: SecretContent): Promise<Result<"replaced" | "conflict", string>>;
}

export interface SharedAuthorityOptions extends Omit<CertificateAuthorityOptions, "plugIn"> {
  readonly secrets: SecretStore;
}

export class SharedAuthority {
  readonly authority: CertificateAuthority;
  readonly #options: SharedAuthorityOptions;
  readonly #plugIn: boolean;
  #cancel: () => void = () => {};
  /** What the Secret said last. */
  #known: string;
  #stopped = false;

  private constructor(authority: CertificateAuthority, options: SharedAuthorityOptions, plugIn: boolean, known: string) {
    this.authority = authority;
    this.#options = options;
    this.#plugIn = plugIn;
    this.#known = known;
    this.#schedule();
  }

  /** Opens the CA that the Secrets hold, making it first where there is none. */
  static async open(options: SharedAuthorityOptions): Promise<Result<SharedAuthority, string>> {
    const given = await options.secrets.read(PLUG_IN_SECRET);
    if (!given.ok) return given;
    if (given.value !== null) return openPlugIn(options, given.value);
    for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
      const shared = await options.secrets.read(OWN_SECRET);
      if (!shared.ok) return shared;
      const text = shared.value?.data[AUTHORITY_KEY];
      if (text !== undefined) return openOwn(options, text);
      const made = openOwn(options, null);
      if (!made.ok) return made;
      const own = made.value.authority.store.text ?? "";
      const written = shared.value === null ? await options.secrets.create(OWN_SECRET, { [AUTHORITY_KEY]: own }) : await options.secrets.replace(OWN_SECRET, { ...shared.value, data: { ...shared.value.data, [AUTHORITY_KEY]: own } });
      if (written.ok && (written.value === "created" || written.value === "replaced")) {
        made.value.#known = own;
        return made;
      }
      made.value.destroy();
      if (!written.ok) return written;
    }
    return err(`the CA in Secret ${OWN_SECRET} could neither be read nor written in ${ATTEMPTS_MAX} attempts`);
  }

  /** Shares what was renewed here, or takes what was renewed elsewhere; runs by itself every LOOK_MS. */
  async sync(): Promise<void> {
    this.#cancel();
    const wrong = this.#plugIn ? await this.#syncPlugIn() : await this.#syncOwn();
    if (wrong !== null) this.#options.onNotice(`the shared CA: ${wrong}; what is here stays in force, tried again in ${LOOK_MS / 1000} s`);
    this.#schedule();
  }

  destroy(): void {
    this.#stopped = true;
    this.#cancel();
    this.authority.destroy();
  }

  #schedule(): void {
    if (!this.#stopped) this.#cancel = this.#options.timers.after(LOOK_MS, () => void this.sync());
  }

  async #syncOwn(): Promise<string | null> {
    const { secrets, clock, onChange } = this.#options;
    const { store } = this.authority;
    const shared = await secrets.read(OWN_SECRET);
    if (!shared.ok) return shared.error;
    const own = store.text ?? "";
    const theirs = shared.value?.data[AUTHORITY_KEY];
    if (theirs === own) {
      this.#known = own;
      return null;
    }
    if (shared.value === null || theirs === undefined) {
      // Somebody deleted it: every certificate in use was signed by what is here.
      const made = shared.value === null ? await secrets.create(OWN_SECRET, { [AUTHORITY_KEY]: own }) : await secrets.replace(OWN_SECRET, { ...shared.value, data: { ...shared.value.data, [AUTHORITY_KEY]: own } });
      return made.ok ? null : made.error;
    }
    if (theirs === this.#known) {
      const written = await secrets.replace(OWN_SECRET, { ...shared.value, data: { ...shared.value.data, [AUTHORITY_KEY]: own } });
      if (!written.ok) return written.error;
      // Lost to another replica: taken at the next look.
      if (written.value === "replaced") this.#known = own;
      return null;
    }
    const adopted = store.adoptText(theirs, clock.wallMs());
    if (!adopted.ok) return adopted.error.message;
    this.#known = theirs;
    onChange();
    return null;
  }

  async #syncPlugIn(): Promise<string | null> {
    const shared = await this.#options.secrets.read(PLUG_IN_SECRET);
    if (!shared.ok) return shared.error;
    if (shared.value === null || shared.value.resourceVersion === this.#known) return shared.value === null ? `Secret ${PLUG_IN_SECRET} is gone` : null;
    const plugIn = plugInOf(shared.value);
    if (!plugIn.ok) return plugIn.error;
    const replaced = this.authority.store.replacePlugIn(plugIn.value, this.#options.clock.wallMs());
    if (!replaced.ok) return replaced.error.message;
    this.#known = shared.value.resourceVersion;
    this.#options.onNotice(`the CA of Secret ${PLUG_IN_SECRET} has changed and is in force`);
    this.#options.onChange();
    return null;
  }

  static openWith(options: SharedAuthorityOptions, plugIn: PlugInCa | null, known: string): Result<SharedAuthority, string> {
    const opened = openCertificateAuthority({ ...options, plugIn });
    return opened.ok ? ok(new SharedAuthority(opened.value, options, plugIn !== null, known)) : err(opened.error.message);
  }
}

function openPlugIn(options: SharedAuthorityOptions, content: SecretContent): Result<SharedAuthority, string> {
  const plugIn = plugInOf(content);
  return plugIn.ok ? SharedAuthority.openWith(options, plugIn.value, content.resourceVersion) : plugIn;
}

/** @param text the CA that is shared; null makes one. */
function openOwn(options: SharedAuthorityOptions, text: string | null): Result<SharedAuthority, string> {
  const directory = openPrivateDirectory(options.directory);
  if (!directory.ok) return directory;
  try {
    // A copy from an earlier life says nothing that the Secret does not.
    if (text === null) directory.value.remove(AUTHORITY_KEY);
    else directory.value.write(AUTHORITY_KEY, text);
  } catch (cause) {
    return err(`the CA cannot be kept in ${options.directory}: ${cause instanceof Error ? cause.message : String(cause)}`);
  }
  return SharedAuthority.openWith(options, null, text ?? "");
}

/** The keys that Istio's documentation gives for it. */
function plugInOf({ data }: SecretContent): Result<PlugInCa, string> {
  const missing = ["ca-cert.pem", "ca-key.pem", "root-cert.pem"].filter((key) => data[key] === undefined);
  if (missing.length > 0) return err(`Secret ${PLUG_IN_SECRET} has no ${missing.join(", ")}; it needs ca-cert.pem, ca-key.pem, root-cert.pem, and cert-chain.pem where there are intermediates`);
  const leaf = data["ca-cert.pem"]!;
  const chain = data["cert-chain.pem"] ?? "";
  // The chain file begins with the signing certificate in some guides, and without it in others.
  const chainPem = chain.replaceAll(/\s/g, "").startsWith(leaf.replaceAll(/\s/g, "")) ? chain : `${leaf.trimEnd()}\n${chain}`;
  return ok({ chainPem, privateKeyPem: data["ca-key.pem"]!, rootsPem: data["root-cert.pem"]! });
}
