package redisstore

import (
	"bytes"
	"encoding/base64"
	"strings"
)

// Records are small and alike: most of each are names that stand in all. So each
// phrase of a list that both sides know is written as two bytes, which does more for
// a few hundred bytes than a compressor that learns as it goes, at a fraction of the
// time.
//
// What is sealed is packed before. Its length then tells whoever reads Redis which
// usual names a body has, which the length alone told before, too; nobody who can see
// lengths can choose what stands beside a secret and be told in the length that they
// match, as in CRIME: a phrase is one of ours, never a part of another body.

// phraseMark begins a phrase; the byte after it says which. JSON never has it.
const phraseMark = 0x01

// firstPhrase is beyond what could end a line.
const firstPhrase = 0x20

// recordPhrases stand in our own records, those with more in them before those with
// less. Lists grow at their end only, and there are at most 223 phrases: records hold
// their numbers.
var recordPhrases = []string{
	"\x01", // as it is
	`","ty":"CARD_3DS","k":"three_ds","me":"approve","st":"pending","ca":"`,
	`"ty":"`, `","k":"three_ds","me":"`, `","k":"card_verification","me":"`, `","st":"`, `","ca":"`, `","l4":"`, `","pa":"`,
	`","co":"`, `","am":"`, `","cu":"`, `","re":"`, `","un":"`, `","oc":"`, `","oc":`, `,"ex":`, `,"an":true,"si":"the cardholder has no active device"}`,
	`,"po":`, `,"an":true`, `,"tp":"`,
	`","o":"forwarded","ca":"`, `","o":"challenge","ca":"`, `","u":"`, `","ow":[{"i":"dlv_`, `"},{"i":"dlv_`, `","k":"forward","t":"`,
	`[{"id":"sub_`, `","a":true,"l":"`, `","la":"`, `","p":{"endpoint":"https://fcm.googleapis.com/fcm/send/`,
	`","p":{"endpoint":"https://`, `","p256dh":"B`, `","auth":"`, `"},"ua":`, `"}}]`, `Chrome · Android`, `Chrome · `, `Safari · iPhone`, `Safari · `, `Firefox · `,
	`updates.push.services.mozilla.com/wpush/v2/gAAAA`, `web.push.apple.com/`, `.notify.windows.com/w/?token=`, `:APA91b`,
}

// bodyNames are how issuers name their fields.
var bodyNames = strings.Fields(`
	eventId uid userBankcardId cardNo verificationType authId transactionAmount transactionCurrency merchantName
	merchantCountry transactionTime expirationTime acsTransId deviceChannel
	event_id id type status timestamp code otp values detail data amount currency
	user_id userId customer_id card_id cardId card_token cardHashId card_number cardNumber card_pan
	reference_code referenceCode auth_id transactionReference tradeNo originTradeNo transaction_id transactionId
	validation_value activationCode auth_url merchant_name merchant_country merchant_country_code merchantId merchant
	transaction_amount transaction_currency transaction name countryCode walletProvider wallet_provider
	occur_time createAt created_seconds expires_at expiresAt expiry_time dsTransId threeDSServerTransId`)

// phrases are all of them, by their numbers.
var phrases, packer = func() ([]string, *strings.Replacer) {
	all := recordPhrases
	for _, name := range bodyNames {
		all = append(all, `","`+name+`":"`, `"`+name+`":`)
	}
	var pairs []string
	for i, p := range all {
		pairs = append(pairs, p, string([]byte{phraseMark, byte(firstPhrase + i)}))
	}
	return all, strings.NewReplacer(pairs...)
}()

// packed is for what stands in clear: it has no end of line that was not there before.
func packed(b []byte) []byte {
	out := bytes.NewBuffer(make([]byte, 0, len(b)))
	_, _ = packer.WriteString(out, string(b)) // a buffer takes all
	return out.Bytes()
}

// A run of what may be base64, as ids and the keys and endpoints of subscriptions are,
// is written as the bytes that it stands for: a mark, how many groups of four letters,
// the bytes.
const (
	runMark  = 0xff
	runLeast = 16 // letters
	runMost  = 255 * 4
)

var letters = func() (is [256]bool) {
	for _, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") {
		is[c] = true
	}
	return is
}()

// packedTight is for what is sealed, where any byte may stand.
func packedTight(b []byte) []byte {
	b = packed(b)
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); {
		if b[i] == phraseMark {
			out = append(out, b[i:i+2]...)
			i += 2
			continue
		}
		end := i
		for end < len(b) && letters[b[end]] && end-i < runMost {
			end++
		}
		groups := (end - i) / 4
		if groups*4 < runLeast {
			end = max(end, i+1)
			out = append(out, b[i:end]...)
			i = end
			continue
		}
		out = append(out, phraseMark, runMark, byte(groups))
		out, _ = base64.RawURLEncoding.AppendDecode(out, b[i:i+groups*4]) // all of them are its letters
		i += groups * 4
	}
	return out
}

// unpacked is what was packed; what never was, and has no mark, stays as it is. ok
// tells whether it was in this form.
func unpacked(b []byte) (out []byte, ok bool) {
	for {
		at := bytes.IndexByte(b, phraseMark)
		if at < 0 {
			if out == nil {
				return b, true
			}
			return append(out, b...), true
		}
		if out == nil {
			out = make([]byte, 0, 3*len(b))
		}
		out = append(out, b[:at]...)
		if b = b[at+1:]; len(b) == 0 {
			return nil, false
		}
		code := b[0]
		b = b[1:]
		if code != runMark {
			if code < firstPhrase || int(code-firstPhrase) >= len(phrases) {
				return nil, false
			}
			out = append(out, phrases[code-firstPhrase]...)
			continue
		}
		if len(b) == 0 || len(b) < 1+3*int(b[0]) {
			return nil, false
		}
		n := 3 * int(b[0])
		out = base64.RawURLEncoding.AppendEncode(out, b[1:1+n])
		b = b[1+n:]
	}
}
