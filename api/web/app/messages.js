// What the page says about a challenge, an outcome or a failure, in plain words.

import { formatAmount } from './format.js';
import { t } from './lang.js';

const WALLETS = { applepay: 'Apple Pay', googlepay: 'Google Pay', samsungpay: 'Samsung Pay' };

const walletName = (wallet) => wallet && (WALLETS[wallet.toLowerCase().replace(/[^a-z]/g, '')] ?? wallet);

// titleOf names who asks: the payee, else the wallet.
export function titleOf({ payee, wallet, kind }) {
  return payee?.name || walletName(wallet)
    || t(kind === 'card_verification' ? 'challenge.card_verification' : 'challenge.unnamed');
}

// summaryOf names a challenge in one line: who asks, and for how much.
export function summaryOf(challenge) {
  const { amount } = challenge;
  const sum = amount && `${formatAmount(amount)} ${amount.currency ?? ''}`.trim();
  return [titleOf(challenge), sum].filter(Boolean).join(', ');
}

// askOf says what is wanted of the cardholder.
export function askOf({ kind, method, wallet }) {
  if (method === 'url') return t('challenge.ask_link');
  const code = method === 'otp' ? '_code' : '';
  if (kind !== 'card_verification') return t(`challenge.ask_payment${code}`);
  const where = walletName(wallet);
  return where ? t(`challenge.ask_wallet${code}`, { wallet: where }) : t(`challenge.ask_verify${code}`);
}

const FAILURES = { issuer_refused: 'refused', issuer_unreachable: 'unreachable' };

// outcomeOf says how a challenge stands: a result, and what it means. Both are
// empty while it is pending. It goes by the status alone: nothing is called
// approved before the server says so.
export function outcomeOf({ status, decision, failure }) {
  switch (status) {
    case 'pending': return { result: '', detail: '' };
    case 'confirming': return outcome('sending');
    case 'rejected': return outcome(decision?.reason === 'not_me' ? 'reported' : 'rejected');
    case 'failed': return outcome(FAILURES[failure?.code] ?? 'unknown');
    case 'approved':
    case 'completed':
    case 'expired':
    case 'cancelled': return outcome(status);
    default: return outcome('ended');
  }
}

// outcome gives result and detail of one of the outcome.* texts.
export function outcome(name, values) {
  return { result: t(`outcome.${name}`, values), detail: t(`outcome.${name}_text`, values) };
}

const EXPLAINED = ['unreachable', 'already_decided', 'expired', 'cancelled', 'shown_mismatch', 'wrong_method', 'not_found',
  'store_unavailable', 'push_timeout', 'push_failed', 'push_unsupported', 'not_configured', 'no_passkey', 'step_up_failed',
  'step_up_blocked', 'recent_login_required', 'passkey_unsupported', 'passkey_exists', 'passkey_failed'];

// explain turns a RelayError into what the cardholder can make of it.
export function explain(error) {
  if (error.code === 'rate_limited') return t('error.rate_limited', { seconds: Math.max(1, error.retryAfter) });
  if (EXPLAINED.includes(error.code)) return t(`error.${error.code}`);
  return t(error.status >= 500 ? 'error.server' : 'error.other');
}
