package forward

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	"approvalrelay/relay"
)

const (
	maxResponse = 1 << 10  // bytes of an answer that are recorded
	maxDrain    = 64 << 10 // bytes read past what is needed, so that the connection can be used again
	userAgent   = "approvalrelay"
)

// newTransport keeps up to conns connections to its one host.
func newTransport(conns int) *http.Transport {
	// The timeouts here bound what goes on in the background after an attempt has
	// given up waiting for a connection.
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	return &http.Transport{
		Proxy:                  nil,
		DialContext:            dialer.DialContext,
		TLSHandshakeTimeout:    10 * time.Second,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2:      true, // a dialer of one's own switches it off
		MaxIdleConnsPerHost:    conns,
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: 32 << 10,
		DisableCompression:     true, // a small answer stays a small answer
		// A connection that died without a word is noticed by these pings, else
		// every request over it would time out until the kernel gives it up.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 5 * time.Second},
	}
}

// answer is how one request ended.
type answer struct {
	status  int // 0: there was no answer
	header  http.Header
	body    []byte        // at most what was asked for
	err     error         // why there is no answer, or why its body ends early
	reached bool          // a connection stood, so the other side may have the request
	latency time.Duration // until the answer was read
}

// post makes one request and reads up to keep bytes of its answer.
func post(ctx context.Context, t *http.Transport, timeout time.Duration, url string, header http.Header, body []byte, keep int64) answer {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	// Whether the request was written cannot be told for sure when an attempt is
	// broken off, only whether there was something to write to.
	var reached atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { reached.Store(true) }})
	start := time.Now()
	a := exchange(ctx, t, url, header, body, keep)
	a.reached, a.latency = reached.Load(), time.Since(start)
	return a
}

func exchange(ctx context.Context, t *http.Transport, url string, header http.Header, body []byte, keep int64) answer {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return answer{err: err}
	}
	req.Header = header
	// The transport and no http.Client: that one reads the Location of redirects
	// even if it does not follow them, and fails on a bad one.
	resp, err := t.RoundTrip(req)
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close()
	a := answer{status: resp.StatusCode, header: resp.Header}
	// The body of a 101 is the bare connection: reading it would heed no deadline.
	if resp.StatusCode != http.StatusSwitchingProtocols {
		a.body, a.err = io.ReadAll(io.LimitReader(resp.Body, keep))
		_, _ = io.CopyN(io.Discard, resp.Body, maxDrain)
	}
	return a
}

// attempt is the record of the exchange, without the answer's text.
func (a answer) attempt() relay.Attempt {
	at := relay.Attempt{StatusCode: a.status, Latency: a.latency}
	switch {
	case a.status == 0:
		at.Error = errorText(a.err)
	case a.status >= 300 && a.status <= 399:
		at.Error = "redirects are not followed"
	}
	return at
}

// maxRetryAfter keeps what is asked for within a Duration; the domain's own
// limit is far below it.
const maxRetryAfter = 24 * time.Hour

// retryAfter is what a 429 or 503 asks for, in seconds or as a date (RFC 9110,
// section 10.2.3); 0 for nothing, and for what is neither.
func (a answer) retryAfter() time.Duration {
	if a.status != http.StatusTooManyRequests && a.status != http.StatusServiceUnavailable {
		return 0
	}
	v := a.header.Get("Retry-After")
	n, err := strconv.ParseUint(v, 10, 64)
	if err == nil || errors.Is(err, strconv.ErrRange) {
		return time.Duration(min(n, uint64(maxRetryAfter/time.Second))) * time.Second
	}
	t, err := http.ParseTime(v)
	if err != nil {
		return 0
	}
	return min(max(time.Until(t), 0), maxRetryAfter)
}

// errorText names why there was no answer. Texts of net/http are not passed on:
// they quote what the other side sent, which may be our own request.
func errorText(err error) string {
	if e, ok := errors.AsType[*net.DNSError](err); ok {
		return "DNS: " + e.Err
	}
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
		return "timeout"
	}
	switch {
	case errors.Is(err, context.Canceled):
		return "broken off: the relay is stopping"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "connection reset"
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return "host unreachable"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "connection closed before the answer was complete"
	}
	// Most errors of crypto/tls have no type, but all have this beginning.
	text := strings.TrimPrefix(strings.TrimPrefix(err.Error(), "remote error: "), "local error: ")
	if cause, ok := strings.CutPrefix(text, "tls: "); ok {
		return excerpt("TLS: " + printable([]byte(cause)))
	}
	return "no valid HTTP answer"
}

// printable makes a foreign text one line of visible characters.
func printable(text []byte) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, strings.ToValidUTF8(string(text), " "))
}

// maxCutWord is longer than any code: a longer word is none.
const maxCutWord = 64

// excerpt is the first 1 KiB of a text. A word that the end cuts in two is left
// out: the caller removes codes by their value and would not know half of one.
func excerpt(text string) string {
	if len(text) <= maxResponse {
		return text
	}
	end := maxResponse
	for !utf8.RuneStart(text[end]) {
		end--
	}
	text = text[:end]
	whole := strings.TrimRightFunc(text, func(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) })
	if len(text)-len(whole) > maxCutWord {
		return text
	}
	return whole
}
