package configs

import (
	"bytes"
	"encoding/xml"
	"errors"
	"image/png"
	"io"
	"net/mail"
	"net/url"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxAppName = 40 // characters
	maxLogo    = 64 << 10
)

var (
	accentColour = regexp.MustCompile(`^#[0-9A-Fa-f]{6}$`)
	// phoneNumber is a tel: URI's number with its visual separators, without
	// parameters (RFC 3966).
	phoneNumber = regexp.MustCompile(`^\+?[0-9().-]{3,30}$`)
)

func (c *checker) app() {
	a := &c.cfg.App
	c.require(appName(a.Name), "app.name", "not a name to show", "1 to 40 printable characters, without spaces around them")
	c.require(a.Accent == "" || accentColour.MatchString(a.Accent), "app.accent", "not a colour", `"#rrggbb" in quotes, as # starts a comment; or "" for the app's own`)
	c.require(a.SupportURL == "" || supportURL(a.SupportURL), "app.support_url", "not an address to link to",
		"https://host.example/path, mailto:name@host.example or tel:+441234567890")
	if a.LoginURL != "" {
		u := c.url("app.login_url", a.LoginURL, plainAnywhere)
		c.require(u == nil || u.Scheme == "https" || loopback(u.Hostname()), "app.login_url", "plain http, over which a session could be stolen",
			"https; http only to localhost and loopback addresses")
	}
	if a.LogoFile != "" {
		a.Logo, a.LogoType = c.logo("app.logo_file", a.LogoFile)
	}
}

func appName(s string) bool {
	return s != "" && strings.TrimSpace(s) == s && utf8.ValidString(s) && utf8.RuneCountInString(s) <= maxAppName &&
		!strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

func supportURL(s string) bool {
	u, err := url.Parse(s)
	if err != nil || strings.ContainsFunc(s, notVisible) {
		return false
	}
	switch u.Scheme {
	case "https":
		return validHost(u) && u.User == nil
	case "mailto":
		address, err := mail.ParseAddress(u.Opaque)
		return err == nil && address.Address == u.Opaque
	case "tel":
		return phoneNumber.MatchString(u.Opaque)
	}
	return false
}

// logo reads an image file and tells by its content what it is.
func (c *checker) logo(key, path string) (data []byte, mediaType string) {
	const allowed = "a PNG or SVG file of at most 64 KiB"
	data = c.file(path, key)
	switch {
	case data == nil:
	case len(data) > maxLogo:
		c.fault(key, "the file is too large", allowed)
	case isPNG(data):
		return data, "image/png"
	case isSVG(data):
		return data, "image/svg+xml"
	default:
		c.fault(key, "the file is neither PNG nor SVG", allowed)
	}
	return nil, ""
}

func isPNG(data []byte) bool {
	_, err := png.DecodeConfig(bytes.NewReader(data))
	return err == nil
}

// isSVG tells whether data is well-formed XML with svg as its root.
func isSVG(data []byte) bool {
	d := xml.NewDecoder(bytes.NewReader(data))
	root := ""
	for {
		token, err := d.Token()
		if err != nil {
			return errors.Is(err, io.EOF) && root == "http://www.w3.org/2000/svg svg"
		}
		if start, ok := token.(xml.StartElement); ok && root == "" {
			root = start.Name.Space + " " + start.Name.Local
		}
	}
}
