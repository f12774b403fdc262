package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// pngZoom makes pixels small enough for screens and paper.
const pngZoom = "2"

// errNoConverter says how to get the plot as PNG.
var errNoConverter = errors.New("rsvg-convert is missing: install Debian's librsvg2-bin (make bench does)")

// drawPNG makes a PNG of an SVG file, beside it: the same picture for places that show
// no SVG. The light colours are taken.
func drawPNG(svg string) error {
	convert, err := exec.LookPath("rsvg-convert")
	if err != nil {
		return errNoConverter
	}
	out, err := exec.Command(convert, "--zoom="+pngZoom, "--output="+strings.TrimSuffix(svg, ".svg")+".png", svg).CombinedOutput()
	if err != nil {
		return fmt.Errorf("drawing the PNG: %w: %s", err, out)
	}
	return nil
}

// warnPNG draws the PNG; the figures count without it.
func warnPNG(svg string) {
	if err := drawPNG(svg); err != nil {
		fmt.Fprintln(os.Stderr, "bench: no PNG:", err)
	}
}
