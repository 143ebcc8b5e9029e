package push

import (
	"net"
	"net/http"
	"time"

	"code.dny.dev/ssrf"
)

// newDialer checks every address when it is dialled, after the name was resolved: a
// check before that could be answered differently by the next lookup (DNS rebinding).
func newDialer(p *Policy) *net.Dialer {
	d := &net.Dialer{Timeout: 3 * time.Second}
	if !p.allowPrivate {
		d.Control = ssrf.New(ssrf.WithPorts(p.ports...)).Safe
	}
	return d
}

// newTransport goes to the push service and nowhere else, and bounds all that it
// may take in time and memory.
func newTransport(d *net.Dialer) *http.Transport {
	return &http.Transport{
		Proxy:                  nil, // a proxy would dial for us, past the dialer's check
		DialContext:            d.DialContext,
		ForceAttemptHTTP2:      true, // a DialContext of one's own switches it off
		TLSHandshakeTimeout:    3 * time.Second,
		ResponseHeaderTimeout:  5 * time.Second,
		MaxResponseHeaderBytes: 32 << 10,
		DisableCompression:     true,
		MaxIdleConns:           256,
		MaxIdleConnsPerHost:    64,
		IdleConnTimeout:        90 * time.Second,
		// A connection that died without a word is noticed by these pings, else
		// every push over it would time out until the kernel gives it up.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 5 * time.Second},
	}
}
