// What the app says about a challenge, an outcome or a failure, in plain words.

const WALLETS = { applepay: 'Apple Pay', googlepay: 'Google Pay', samsungpay: 'Samsung Pay' };

export const SENDING = 'Sending to your bank…';
export const TIME_IS_UP = 'Time is up.';
export const COPIED = 'Copied';
export const NOT_COPIED = 'Could not copy. Please type it.';

const walletName = (wallet) => wallet && (WALLETS[wallet.toLowerCase().replace(/[^a-z]/g, '')] ?? wallet);

// titleOf names who asks: the payee, else the wallet.
export function titleOf({ payee, wallet, kind }) {
  return payee?.name || walletName(wallet) || (kind === 'card_verification' ? 'Card verification' : 'Shop not named');
}

// askOf says what is wanted of the cardholder.
export function askOf({ kind, method, wallet }) {
  if (method === 'url') return 'Confirm on your bank’s page';
  if (kind === 'card_verification') {
    const where = walletName(wallet);
    if (method === 'otp') return where ? `Code to add your card to ${where}` : 'Code to verify your card';
    return where ? `Add your card to ${where}?` : 'Verify your card?';
  }
  return method === 'otp' ? 'Code for your payment' : 'Approve this payment?';
}

// outcomeOf says how a challenge stands; nothing while it is pending. It goes
// by the status alone: nothing is called approved before the server says so.
export function outcomeOf({ status, decision, failure }) {
  switch (status) {
    case 'pending': return '';
    case 'confirming': return SENDING;
    case 'approved': return 'Approved';
    case 'rejected': return decision?.reason === 'not_me' ? 'Rejected and reported' : 'Rejected';
    case 'completed': return decision?.reason === 'not_me' ? 'Reported' : 'Done';
    case 'expired': return 'Expired. Nothing was approved.';
    case 'cancelled': return 'Withdrawn. A newer request may have replaced it.';
    case 'failed': return failureOf(failure);
    default: return 'Ended';
  }
}

function failureOf(failure) {
  switch (failure?.code) {
    case 'issuer_refused': return 'Failed. Your bank did not accept the answer.';
    case 'issuer_unreachable': return 'Failed. Your bank could not be reached in time.';
    default: return 'Not certain. Your bank may or may not have received the answer. Ask before you pay again.';
  }
}

// explain turns an ApiError into what the cardholder can make of it.
export function explain(error) {
  switch (error.code) {
    case 'unreachable': return 'There was no answer. Please check your connection and try again.';
    case 'already_decided': return 'This was already answered differently, perhaps on another device.';
    case 'expired': return 'Time ran out before this reached us.';
    case 'shown_mismatch': return 'The details have changed. Nothing was decided. Check them and try again.';
    case 'wrong_method': return 'This request cannot be answered that way.';
    case 'not_found': return 'This request is no longer here.';
    case 'rate_limited':
      return error.retryAfter > 1
        ? `Too many tries. Please wait ${error.retryAfter} seconds.`
        : 'Too many tries. Please wait a moment.';
    case 'store_unavailable': return 'The service is busy. Please try again in a moment.';
    default:
      return error.status >= 500 || error.status === 0
        ? 'Something went wrong on our side. Please try again.'
        : 'This could not be done. Reload the page and try again.';
  }
}
