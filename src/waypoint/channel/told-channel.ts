// What every channel tells its user about its end, whatever carries it: the peer's end once, and before a usual close; the close last.

import type { ChannelUser } from "./channel.ts";

export abstract class ToldChannel {
  user: ChannelUser | null = null;
  #endTold = false;

  protected tellEnd(): void {
    if (this.#endTold) return;
    this.#endTold = true;
    this.user?.onPeerEnd();
  }

  /** After our own end the peer's is often told of by closing only. @param error what went wrong; null for a usual end. */
  protected tellClosed(error: string | null): void {
    if (error === null) this.tellEnd();
    const { user } = this;
    this.user = null;
    user?.onChannelClosed(error);
  }
}
