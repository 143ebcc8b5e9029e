package forward

import (
	"context"
	"errors"
	"net/http"
)

// Reach asks a URL for its OPTIONS, without a body or a credential, over the same
// kind of connection as deliveries: any answer says that the address, the network
// and TLS are right. Nothing is delivered. Errors hold no URL and no foreign text
// but what a certificate says.
func Reach(ctx context.Context, url string) (status int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodOptions, url, nil)
	if err != nil {
		return 0, errors.New("it is not a URL")
	}
	req.Header.Set("User-Agent", userAgent)
	t := newTransport(1)
	defer t.CloseIdleConnections()
	resp, err := t.RoundTrip(req)
	if err != nil {
		return 0, errors.New(errorText(err))
	}
	_ = resp.Body.Close() // what it says does not matter
	return resp.StatusCode, nil
}
