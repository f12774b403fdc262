package vm

import (
	"encoding/base64"
	"os"
	"path/filepath"
)

// files sends what programs left in OutDir.
func (w *framer) files() error {
	names, err := filepath.Glob(OutDir + "/*")
	if err != nil {
		return err
	}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		w.mark("file", filepath.Base(name)+" "+base64.StdEncoding.EncodeToString(data))
	}
	return nil
}
