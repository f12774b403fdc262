package cage

import "weave/odp/keeper"

// AddressOf is a peer's address inside.
var AddressOf = addressOf

// PathOf is the name of the cage of the namespace that in runs functions in.
func PathOf(in func(func() error) error) (path string) {
	in(func() error {
		host, err := keeper.OpenHost()
		if err != nil {
			return err
		}
		defer host.Close()
		p, err := placeOf(host)
		path = p.path
		return err
	})
	return path
}
