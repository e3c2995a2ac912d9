bind = "127.0.0.1:8001"
workers = 4
chdir = "/srv/shop"
