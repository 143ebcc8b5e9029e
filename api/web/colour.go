package web

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
)

// colour is an opaque sRGB colour.
type colour struct{ r, g, b uint8 }

var (
	black = colour{}
	white = colour{255, 255, 255}
)

// legible is the least contrast of text on its ground: WCAG 2.2, criterion 1.4.3
// (AA). Of black and white, one has 4.58 or more on every colour.
const legible = 4.5

var hexColour = regexp.MustCompile(`^#[0-9A-Fa-f]{6}$`)

func parseColour(s string) (colour, error) {
	if !hexColour.MatchString(s) {
		return colour{}, fmt.Errorf("%q is not a colour: write #rrggbb", s)
	}
	n, err := strconv.ParseUint(s[1:], 16, 24)
	return colour{uint8(n >> 16), uint8(n >> 8), uint8(n)}, err
}

func (c colour) String() string { return fmt.Sprintf("#%02x%02x%02x", c.r, c.g, c.b) }

// luminance is the relative luminance as WCAG 2.2 defines it, 0 to 1.
func (c colour) luminance() float64 {
	linear := func(v uint8) float64 {
		s := float64(v) / 255
		if s <= 0.04045 {
			return s / 12.92
		}
		return math.Pow((s+0.055)/1.055, 2.4)
	}
	return 0.2126*linear(c.r) + 0.7152*linear(c.g) + 0.0722*linear(c.b)
}

// contrast is the contrast ratio as WCAG 2.2 defines it, 1 to 21.
func contrast(a, b colour) float64 {
	light, dark := a.luminance(), b.luminance()
	if light < dark {
		light, dark = dark, light
	}
	return (light + 0.05) / (dark + 0.05)
}

// towards is c mixed with percent of other.
func (c colour) towards(other colour, percent int) colour {
	mix := func(a, b uint8) uint8 { return uint8((int(a)*(100-percent) + int(b)*percent + 50) / 100) }
	return colour{mix(c.r, other.r), mix(c.g, other.g), mix(c.b, other.b)}
}

// accents are the colours that follow from an operator's accent.
type accents struct {
	accent, press, on colour // a button, the same when pressed, and the text on both
	ink               colour // the accent as text and drawing
}

// accentsOn derives the colours for a theme with these grounds: on is legible on
// accent and press, ink on every ground. The accent itself stays as it is. ink is
// the accent moved towards pole, which is black for light grounds and white for
// dark ones.
func accentsOn(accent, pole colour, grounds ...colour) accents {
	a := accents{accent: accent, on: white, ink: accent}
	if contrast(accent, black) > contrast(accent, white) {
		a.on = black
	}
	a.press = pressed(accent, a.on)
	for percent := 1; percent <= 100 && !legibleOn(a.ink, grounds); percent++ {
		a.ink = accent.towards(pole, percent)
	}
	return a
}

// pressed is somewhat darker than the accent, or else lighter: the nearest that can
// be told from it and on which the text stays legible.
func pressed(accent, text colour) colour {
	for percent := 15; percent < 100; percent += 5 {
		for _, pole := range []colour{black, white} {
			if p := accent.towards(pole, percent); contrast(p, accent) >= 1.1 && contrast(p, text) >= legible {
				return p
			}
		}
	}
	return accent
}

func legibleOn(c colour, grounds []colour) bool {
	for _, ground := range grounds {
		if contrast(c, ground) < legible {
			return false
		}
	}
	return true
}
