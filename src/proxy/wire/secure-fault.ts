/** Why TLS with an endpoint came to nothing. */
import { TLSSocket } from 'node:tls';
import { codeOf } from '#errors';
import type { Wire } from './wire.ts';

export type SecureFault =
  /** Its certificate does not verify. */
  | 'certificate'
  /** It ended TLS and said why. */
  | 'alert'
  /** It does not speak TLS as we do, or ended in the middle of a handshake. */
  | 'protocol';

const OF_TLS = /^(?:ERR_SSL_|ERR_TLS_|EPROTO$)/;

/** Undefined: it was not TLS. */
export function secureFaultOf({ socket, fault, reached }: Pick<Wire, 'socket' | 'fault' | 'reached'>): SecureFault | undefined {
  if (!(socket instanceof TLSSocket)) return undefined;
  // Where a certificate is not looked at, Node says of it all the same, and goes on.
  const isShaking = Reflect.get(socket, 'secureConnecting') === true;
  if (isShaking && isSaid(socket.authorizationError)) return 'certificate';
  const code = codeOf(fault) ?? '';
  if (OF_TLS.test(code)) return code.includes('ALERT') ? 'alert' : 'protocol';
  return isShaking && reached ? 'protocol' : undefined;
}

function isSaid(value: unknown): boolean {
  return value !== undefined && value !== null && value !== '';
}
