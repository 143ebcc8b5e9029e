package web

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"image/png"
	"regexp"
)

// Brand is what an operator makes the app their own with.
type Brand struct {
	Name       string   // shown as the app's name; empty: "Card approvals"
	Accent     string   // #rrggbb; empty: the app's own
	Logo       []byte   // a PNG or SVG file; nil: the app's own
	LogoType   string   // of Logo: image/png or image/svg+xml
	SupportURL string   // https, mailto or tel; empty: none
	LoginURL   string   // where a session is renewed; empty: nowhere
	Origins    []string // whose pages may sign the app in
}

const ownLogo = "icon.svg"

func (b Brand) name() string {
	if b.Name == "" {
		return "Card approvals"
	}
	return b.Name
}

// logo is the name of the logo's file.
func (b Brand) logo() string {
	switch {
	case b.Logo == nil:
		return ownLogo
	case b.LogoType == "image/png":
		return "logo.png"
	}
	return "logo.svg"
}

// generate adds to the embedded files what follows from the brand.
func (b Brand) generate(files map[string][]byte) error {
	look, err := themeOf(files["theme.css"])
	if err != nil {
		return err
	}
	css, err := b.css(look)
	if err != nil {
		return err
	}
	if b.Logo != nil {
		if b.LogoType != "image/png" && b.LogoType != "image/svg+xml" {
			return errors.New("the logo must be image/png or image/svg+xml")
		}
		files[b.logo()] = b.Logo
	}
	files["theme.css"] = append(files["theme.css"][:len(files["theme.css"]):len(files["theme.css"])], css...)
	files["config.json"] = encode(map[string]any{
		"name": b.name(), "support_url": b.SupportURL, "login_url": b.LoginURL, "origins": append([]string{}, b.Origins...), "logo": b.logo(),
	})
	files["manifest.webmanifest"] = encode(b.manifest(look, files))
	return nil
}

// css sets the accent's colours over those of theme.css, after which it stands.
func (b Brand) css(look theme) (string, error) {
	if b.Accent == "" {
		return "", nil
	}
	accent, err := parseColour(b.Accent)
	if err != nil {
		return "", fmt.Errorf("accent: %w", err)
	}
	rule := func(a accents) string {
		return fmt.Sprintf(":root{--accent:%s;--accent-press:%s;--on-accent:%s;--accent-ink:%s}", a.accent, a.press, a.on, a.ink)
	}
	return rule(accentsOn(accent, black, look.light.card, look.light.page)) +
		"@media (prefers-color-scheme:dark){" + rule(accentsOn(accent, white, look.dark.card, look.dark.page)) + "}\n", nil
}

type icon struct {
	Source  string `json:"src"`
	Sizes   string `json:"sizes"`
	Type    string `json:"type"`
	Purpose string `json:"purpose"`
}

// minIcon is the least width in pixels of what can stand for an installed app.
const minIcon = 192

// manifest is the web app manifest (W3C). A logo that can be an icon takes the
// place of all of the app's own.
func (b Brand) manifest(look theme, files map[string][]byte) map[string]any {
	icons := []icon{
		{"icons/icon-192.png", "192x192", "image/png", "any"},
		{"icons/icon-512.png", "512x512", "image/png", "any"},
		{"icons/maskable-512.png", "512x512", "image/png", "maskable"},
		{ownLogo, "any", "image/svg+xml", "any"},
	}
	if size, ok := b.square(); ok {
		icons = []icon{{b.logo(), fmt.Sprintf("%dx%d", size, size), "image/png", "any"}}
		for _, name := range []string{"icons/icon-192.png", "icons/apple-touch-icon.png"} {
			files[name] = b.Logo // the page and the worker know these names
		}
	}
	return map[string]any{
		"name": b.name(), "id": "./", "start_url": "./", "scope": "./", "display": "standalone",
		"background_color": look.light.page.String(), "theme_color": look.light.page.String(), "icons": icons,
	}
}

// square tells the size of the logo if it is a PNG that can be an icon.
func (b Brand) square() (size int, ok bool) {
	if b.LogoType != "image/png" {
		return 0, false
	}
	c, err := png.DecodeConfig(bytes.NewReader(b.Logo))
	return c.Width, err == nil && c.Width == c.Height && c.Width >= minIcon
}

// encode is for values that are known to be JSON. The result stands in no page,
// so <, > and & need no escape.
func encode(v any) []byte {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic("web: encode: " + err.Error())
	}
	return out.Bytes()
}

// theme is what of theme.css the accent has to be legible on.
type theme struct{ light, dark grounds }

type grounds struct{ page, card colour }

var groundOf = map[string]*regexp.Regexp{
	"page": regexp.MustCompile(`--page:\s*(#[0-9A-Fa-f]{6})\s*;`),
	"card": regexp.MustCompile(`--card:\s*(#[0-9A-Fa-f]{6})\s*;`),
}

// themeOf reads the grounds where they are written, the light ones first, so that
// they need not be kept in step with a copy here.
func themeOf(css []byte) (t theme, err error) {
	find := func(name string) (light, dark colour) {
		found := groundOf[name].FindAllSubmatch(css, -1)
		if len(found) != 2 {
			err = fmt.Errorf("theme.css: --%s is given %d times as #rrggbb; want it for light and then for dark", name, len(found))
			return light, dark
		}
		light, _ = parseColour(string(found[0][1])) // the pattern lets nothing else pass
		dark, _ = parseColour(string(found[1][1]))
		return light, dark
	}
	t.light.page, t.dark.page = find("page")
	t.light.card, t.dark.card = find("card")
	return t, err
}
