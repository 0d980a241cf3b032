from gradlab.figures import save as save
def sentiment(curves, epochs): raise SystemExit("later")
