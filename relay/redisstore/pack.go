package redisstore

import (
	"bytes"
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
	`[{"id":"sub_`, `","a":true,"l":"`, `","la":"en","cr":`, `,"us":`, `,"p":{"endpoint":"https://`, `","p256dh":"B`, `","auth":"`,
	`fcm.googleapis.com/fcm/send/`, `updates.push.services.mozilla.com/wpush/v2/gAAAA`, `web.push.apple.com/`, `.notify.windows.com/w/?token=`, `:APA91b`,
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

var packer, unpacker = func() (pack, unpack *strings.Replacer) {
	phrases := recordPhrases
	for _, name := range bodyNames {
		phrases = append(phrases, `","`+name+`":"`, `"`+name+`":`)
	}
	var to, from []string
	for i, p := range phrases {
		short := string([]byte{phraseMark, byte(firstPhrase + i)})
		to, from = append(to, p, short), append(from, short, p)
	}
	return strings.NewReplacer(to...), strings.NewReplacer(from...)
}()

func packed(b []byte) []byte { return []byte(packer.Replace(string(b))) }

// unpacked is what was packed; what never was, and has no mark, stays as it is.
func unpacked(b []byte) []byte {
	if bytes.IndexByte(b, phraseMark) < 0 {
		return b
	}
	return []byte(unpacker.Replace(string(b)))
}
