import type { PoolClient } from 'pg';
import { codeOf } from '../cause-codes.ts';
import { ConnectionLostError, FilestoreError } from '../errors.ts';
import { describeLoss, isConnectionLoss } from '../session/connection-error.ts';
import type { Database } from '../settings/database.ts';
import { paragraph } from '../text.ts';

/** Turns an error for which pg has no code into `CONNECTION_LOST` if the connection was lost. */
export function nameLoss({ where }: Database, error: unknown, reason = error): unknown {
  if (codeOf(error) !== undefined || !isConnectionLoss(error)) return error;
  // This package ended the session, and says why.
  if (reason instanceof FilestoreError) return reason;
  const remedy = 'Repeat the transaction. If it was at its commit, look first whether it was committed.';
  return new ConnectionLostError(paragraph(describeLoss(where, reason), remedy), [], { cause: reason });
}

/**
 * Names the errors of a connection. Between two statements, the server's reason arrives as an event, and the
 * next statement fails without it.
 * @returns Names the error of a statement, with that reason as its cause.
 */
export function lossNamer(client: PoolClient, database: Database): (error: unknown) => unknown {
  let reason: Error | undefined;
  client.on('error', (error) => {
    reason ??= error;
  });
  return (error) => nameLoss(database, error, reason);
}
