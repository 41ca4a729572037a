"""The crawl stage: read sources into tables of images and captions."""
