package main

import (
	"errors"
	"image/png"
	"os"
	"path/filepath"
	"testing"
)

func TestDrawPNG(t *testing.T) {
	r, paths := example()
	svg := filepath.Join(t.TempDir(), "latest.svg")
	if err := os.WriteFile(svg, []byte(plot(r, paths)), 0o644); err != nil {
		t.Fatal(err)
	}
	switch err := drawPNG(svg); {
	case errors.Is(err, errNoConverter):
		t.Skip("needs rsvg-convert, which only make bench installs")
	case err != nil:
		t.Fatal(err)
	}
	f, err := os.Open(filepath.Join(filepath.Dir(svg), "latest.png"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	img, err := png.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	if b := img.Bounds(); b.Dx() != 2*plotWidth || b.Dy() < 200 {
		t.Errorf("%v pixels", b.Size())
	}
	if r, g, b, _ := img.At(img.Bounds().Dx()/2, 3).RGBA(); r>>8 < 0xf0 || g>>8 < 0xf0 || b>>8 < 0xf0 {
		t.Errorf("the page is %02x%02x%02x, want it light", r>>8, g>>8, b>>8)
	}
}
